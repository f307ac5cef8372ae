"""A teacher of points in the plane, guide students, and settings of methods for fast tests."""

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax import models
from cake_jax.methods import METHODS
from cake_jax.teachers import Teacher
from cake_jax.training import DISTILLATION, trainer
from cake_jax.types import DataSpec

PLANE = DataSpec((2,), 2)
KEY = jax.random.key(0)


def _wave(variables, x):
    height = 2 * (x[:, 1] - jnp.sin(2 * x[:, 0]))
    return jnp.stack([-height, height], axis=1)


# Its decision boundary is x_1 = sin(2 x_0).
WAVE = Teacher((), _wave, PLANE)


def wave(x):
    """The logits of `WAVE` in NumPy, `[N, 2]` float32."""
    height = 2 * (x[:, 1] - np.sin(2 * x[:, 0]))
    return np.stack([-height, height], axis=1).astype(np.float32)


def prepared(method, spec=PLANE, **fields):
    """Settings of a method: 4 rounds of 40 samples, which take 3 steps, with the given fields in their place."""
    kind = METHODS[method].settings
    common = {"num_batches": 4, "batch_size": 40, "num_groups": 2, "num_steps": 3}
    if hasattr(kind(), "latent_size"):
        common |= {"latent_size": 8, "features": (8, 8, 8)}
    return METHODS[method].prepare(kind(**{**common, **fields}), spec)


def student_of(spec, seed=7):
    """An untrained student."""
    module = models.create("mlp", spec, {"width": 8, "num_hidden": 0})
    return trainer.as_model(module, trainer.init(jax.random.key(seed), module, spec, DISTILLATION), spec)
