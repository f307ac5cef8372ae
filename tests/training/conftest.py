"""The points of `small_training`, and a module that learns them."""

import numpy as np
import pytest
from small_training import SPEC

from cake_jax import models
from cake_jax.training import Labels


@pytest.fixture(scope="session")
def points():
    """Inputs `[205, 6]` and their classes, which a linear map decides."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(205, 6)).astype(np.float32)
    return x, Labels((x @ rng.normal(size=(6, 3))).argmax(axis=1).astype(np.int32))


@pytest.fixture(scope="session")
def module():
    """An MLP with one hidden layer."""
    return models.create("mlp", SPEC, {"width": 8, "num_hidden": 0})
