"""The starts p(x) by name, and a start that is added from outside."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_synthesis import SETTINGS
from smooth_teacher import SPEC

from cake_jax.starts import STARTS, Start
from cake_jax.synthesis import checked, draw_batch
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


@pytest.mark.parametrize("name", ["strokes", "leaves"])
@pytest.mark.parametrize("channels", [1, 3])
def test_procedural_images_differ_and_stay_in_range(name, channels):
    spec = DataSpec((24, 28, channels), 10, mean=(0.25,), std=(0.5,), low=0.0, high=1.0)
    x = draws(name, spec)
    assert x.shape == (400, 24, 28, channels)
    assert x.min() >= -0.5
    assert x.max() <= 1.5
    assert np.ptp(x) > 1.8, "they use most of the range"
    means = x.mean(axis=(1, 2))
    assert means.std(axis=0).min() > 0.1, "images differ in brightness"
    unbounded = draws(name, DataSpec((24, 28, channels), 10))
    np.testing.assert_allclose(unbounded, 2 * x - 1, atol=1e-5)


def test_leaves_have_a_texture_much_weaker_than_their_edges():
    x = draws("leaves", DataSpec((32, 32, 3), 10, low=0.0, high=1.0))
    change = np.abs(x[:, 1:] - x[:, :-1]).mean(axis=-1)
    assert np.median(change) < 0.06, "most neighbours belong to one leaf"
    assert np.mean(change == 0) < 0.05, "leaves have a texture"
    assert 0.02 < np.mean(change > 0.2) < 0.2, "some neighbours belong to two leaves"


def test_leaves_without_shading_and_texture_are_flat_with_sharp_edges(monkeypatch):
    for name in ("_SHADING", "_TEXTURE"):
        monkeypatch.setattr(f"cake_jax.starts.leaves.{name}", 0.0)
    x = draws("leaves", DataSpec((32, 32, 3), 10, low=0.0, high=1.0))
    flat = np.all(x[:, 1:] == x[:, :-1], axis=-1)
    assert 0.6 < flat.mean() < 0.98
    assert flat.mean(axis=(1, 2)).std() > 0.038, "images differ in the size of their leaves"


def test_leaves_are_grey_in_some_images_and_colourful_in_others():
    x = draws("leaves", DataSpec((32, 32, 3), 10, low=0.0, high=1.0))
    colourfulness = x.std(axis=-1).mean(axis=(1, 2))
    assert np.quantile(colourfulness, 0.1) < 0.06
    assert np.quantile(colourfulness, 0.9) > 0.12


def test_strokes_are_mostly_black_or_white():
    x = draws("strokes", DataSpec((28, 28, 1), 10, low=0.0, high=1.0))
    assert np.mean((x < 0.1) | (x > 0.9)) > 0.6
    assert 0.3 < np.mean(x < 0.1) < 0.8
    assert correlation_of_neighbours(x) > 0.8
