"""The grid, and the agreement of models on it."""

import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax.evaluation import grid, grid_agreement
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec


def plane_model(weights):
    weights = jnp.asarray(weights, jnp.float32)
    return from_function(lambda x: x @ weights, DataSpec((2,), 2))


RIGHT, LEFT, ABOVE = (plane_model(weights) for weights in ([[1, -1], [0, 0]], [[-1, 1], [0, 0]], [[0, 0], [1, -1]]))
IMAGES = from_function(lambda x: x.reshape(len(x), -1)[:, :2], DataSpec((4, 4, 1), 2))


def test_grid_covers_the_square():
    points, shape = grid()
    assert points.shape == (shape[0] * shape[1], 2) == (40_000, 2)
    np.testing.assert_array_equal(points.min(axis=0), [-2, -2])
    np.testing.assert_array_equal(points.max(axis=0), [2, 2])
    assert len(np.unique(points, axis=0)) == len(points)


def test_grid_agreement_is_a_share_of_the_square():
    assert grid_agreement(RIGHT, RIGHT) == 1
    assert grid_agreement(RIGHT, LEFT) == 0
    assert grid_agreement(RIGHT, ABOVE) == pytest.approx(0.5)
    assert isinstance(grid_agreement(RIGHT, ABOVE), float)


@pytest.mark.parametrize(("student", "teacher"), [(IMAGES, IMAGES), (None, RIGHT), (RIGHT, None), (None, None)])
def test_grid_agreement_without_two_models_of_the_plane_is_none(student, teacher):
    assert grid_agreement(student, teacher) is None
