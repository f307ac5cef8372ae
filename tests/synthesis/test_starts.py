"""The starts p(x) by name, and a start that is added from outside."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_synthesis import SETTINGS
from smooth_teacher import SPEC

from cake_jax.synthesis import checked, draw_batch
from cake_jax.synthesis.starts import STARTS, Start
from cake_jax.types import DataSpec

KEY = jax.random.key(0)


def draws(name, spec):
    return np.asarray(STARTS[name].draw(KEY, 400, spec))


def correlation_of_neighbours(x):
    return np.mean(x[:, 1:] * x[:, :-1]) / np.mean(x**2)


def test_normal_values_are_independent_and_standard():
    x = draws("normal", DataSpec((28, 28, 2), 10))
    error = 4 / np.sqrt(x.size)
    assert abs(x.mean()) < error
    assert abs(x.var() - 1) < error * np.sqrt(2)
    assert abs(correlation_of_neighbours(x)) < 2 * error


def test_smooth_values_resemble_their_neighbours():
    x = draws("smooth", DataSpec((28, 28, 2), 10))
    assert abs(x.mean()) < 0.05
    assert 0.7 < x.std() < 1.4
    assert correlation_of_neighbours(x) > 0.4
    assert abs(np.mean(x[..., 0] * x[..., 1])) < 0.05, "channels are independent"


def test_contrasted_values_fill_the_valid_range():
    spec = DataSpec((28, 28, 2), 10, mean=(0.2, 0.5), std=(0.3, 0.25), low=0.0, high=1.0)
    x = draws("contrasted", spec)
    low, high = np.array([-2 / 3, -2.0]), np.array([8 / 3, 2.0])
    for channel in range(2):
        values = x[..., channel]
        assert values.min() == pytest.approx(low[channel], rel=1e-6)
        assert values.max() == pytest.approx(high[channel], rel=1e-6)
        assert np.mean(values == values.min()) > 0.05, "many pixels are black"
    assert correlation_of_neighbours(x) > 0.5
    unbounded = draws("contrasted", DataSpec((28, 28, 2), 10))
    np.testing.assert_allclose(np.clip(unbounded, low, high), x, rtol=1e-6)


def test_a_start_registered_from_outside_is_used_by_its_name(monkeypatch):
    ramp = Start(lambda key, groups, spec: jnp.arange(groups, dtype=float).reshape(-1, 1, 1, 1) + jnp.ones(spec.shape))
    monkeypatch.setitem(STARTS, "ramp", ramp)
    settings = checked(dataclasses.replace(SETTINGS, start="ramp"), SPEC)
    x, _ = draw_batch(KEY, settings, SPEC, 0)
    np.testing.assert_array_equal(x[..., 0, 0, 0], np.tile([1, 2, 3], 5))
