"""Random arrays and random variables of modules, shared by the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np


def random(*shape, seed=0):
    """Normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def variable_shapes(module, shape):
    """Shapes of a module's variables for inputs of this shape."""
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def variables_like(shapes):
    """Random variables of these shapes. NumPy makes them faster than XLA compiles an initializer."""
    return jax.tree.map(lambda leaf: random(*leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])).astype(leaf.dtype), shapes)
