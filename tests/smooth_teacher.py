"""A smooth teacher of 4 x 4 images with 2 channels in 5 classes, in JAX and in NumPy."""

import jax.numpy as jnp
import numpy as np

from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec

SPEC = DataSpec((4, 4, 2), 5)
SIZE = 32
_rng = np.random.default_rng(7)
_WEIGHTS = _rng.normal(size=(SIZE, 8)) / np.sqrt(SIZE), 2 * _rng.normal(size=(8, 5))


def _apply(variables, x):
    first, second = variables
    return jnp.tanh(x.reshape(len(x), -1) @ first) @ second


TEACHER = Teacher(tuple(array.astype(np.float32) for array in _WEIGHTS), _apply, SPEC)


def logits_of(x):
    """The teacher's logits `[N, 5]` in float64, of x `[N, 4, 4, 2]`."""
    first, second = TEACHER.variables
    return np.tanh(np.asarray(x, np.float64).reshape(len(x), -1) @ first) @ second


def jacobian_of(x):
    """The derivatives of the logits at x `[N, 4, 4, 2]`: `[N, 5, 32]`."""
    first, second = TEACHER.variables
    hidden = np.tanh(np.asarray(x, np.float64).reshape(len(x), -1) @ first)
    return np.einsum("hk,nh,dh->nkd", second, 1 - hidden**2, first)
