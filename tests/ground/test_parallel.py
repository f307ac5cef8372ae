"""Dealing rows out to devices, and mapping over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cake_jax import parallel


def test_device_count():
    assert parallel.device_count() == jax.local_device_count()
    if jax.default_backend() == "cpu":
        assert parallel.device_count() == 2


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_deal(count, chunk):
    rows, mask = parallel.deal(count, chunk)
    devices = parallel.device_count()
    chunks = -(-count // (devices * chunk))  # No more than the rows need.
    assert rows.shape == mask.shape == (devices, chunks, chunk)
    assert rows.dtype == np.int32
    assert mask.dtype == bool
    np.testing.assert_array_equal(rows[mask], np.arange(count))
    np.testing.assert_array_equal(rows[~mask], count - 1)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_gather_undoes_deal(count, chunk):
    data = {"x": np.random.default_rng(0).normal(size=(count, 2, 3)), "y": np.arange(count) * 10}
    rows, _ = parallel.deal(count, chunk)
    back = parallel.gather({name: jnp.asarray(leaf[rows]) for name, leaf in data.items()}, count)
    assert all(isinstance(leaf, np.ndarray) for leaf in back.values())
    np.testing.assert_array_equal(back["y"], data["y"])
    np.testing.assert_allclose(back["x"], data["x"], rtol=1e-6)


def test_map_devices_reduces_over_devices():
    devices = parallel.device_count()
    x = np.arange(devices * 3, dtype=np.float32).reshape(devices, 3) + 1
    weight = np.array([1.0, 10.0, 100.0], np.float32)

    def function(tree, weight):
        scaled = tree["x"] * weight
        return scaled, lax.psum(scaled, parallel.AXIS), lax.axis_index(parallel.AXIS)

    scaled, total, index = parallel.map_devices(function, (0, None))({"x": x}, weight)
    np.testing.assert_allclose(scaled, x * weight)
    np.testing.assert_allclose(total, np.broadcast_to((x * weight).sum(0), x.shape))
    np.testing.assert_array_equal(index, np.arange(devices))


def test_map_devices_with_one_result_for_all():
    devices = parallel.device_count()
    x = np.arange(devices, dtype=np.float32) + 1

    def function(x):
        return x, lax.pmean(x, parallel.AXIS)

    each, mean = parallel.map_devices(function, (0,), (0, None))(x)
    np.testing.assert_allclose(each, x)
    assert mean.shape == ()
    np.testing.assert_allclose(mean, x.mean())


@pytest.mark.parametrize("count", [1, 5, 9])
def test_masked_sum_over_dealt_rows(count):
    # What the two together are for: a sum over all rows, whatever their number.
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    rows, mask = parallel.deal(count, 2)

    def function(x, mask):
        return 2 * x, lax.psum(jnp.sum(x * mask), parallel.AXIS)

    doubled, total = parallel.map_devices(function, (0, 0), (0, None))(values[rows], mask)
    np.testing.assert_allclose(total, values.sum(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parallel.gather(doubled, count), 2 * values, rtol=1e-6)
