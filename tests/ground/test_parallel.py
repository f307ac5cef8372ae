"""Devices and processes: rows divided among devices, functions mapped over devices, shares of processes."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import multihost_utils

from cake_jax import parallel


def test_device_counts_of_one_process():
    devices = 2 if jax.default_backend() == "cpu" else jax.local_device_count()
    assert parallel.device_count() == parallel.total_device_count() == devices
    assert parallel.own_devices() == list(range(devices))


def test_one_process_is_the_first_and_has_everything():
    assert parallel.is_first()
    assert [parallel.as_first(value) for value in (True, False)] == [True, False]
    assert parallel.own_share([5, 6, 7]) == [5, 6, 7]


def test_what_one_process_finds_all_know(monkeypatch):
    assert parallel.each_in_any([True, False]).tolist() == [True, False]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own, [False, True, False]]))
    assert parallel.each_in_any([True, False, False]).tolist() == [True, True, False]
    assert parallel.each_in_any([]).tolist() == []


def test_processes_that_cannot_join_are_refused():
    """In a process of its own: JAX joins no processes once it uses a device."""
    program = (
        "from cake_jax import parallel, types\n"
        "for given in ('localhost', 2, 0), ('host:', 2, 0), ('localhost:1', 2, 2), ('auto', 1, 0):\n"
        "    try:\n        parallel.join(*given)\n    except types.CakeError as error:\n        print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    *no_port, too_high, no_cluster = ended.stdout.splitlines()
    assert no_port == [f"coordinator: '{address}' must be host:port or auto" for address in ("localhost", "host:")]
    assert too_high == "process_id: 2 must be below num_processes, 2"
    assert no_cluster.startswith("coordinator: JAX finds no processes with 'auto': ")


def test_own_share_divides_items_among_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    shares = []
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares.append(list(parallel.own_share(range(7))))
        assert parallel.is_first() == (process == 0)
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_deal_numbers_rows_in_order_and_masks_padding(count, chunk):
    rows, mask = parallel.deal(count, chunk)
    devices = parallel.device_count()
    chunks = -(-count // (devices * chunk))  # The fewest chunks that hold the rows.
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


@pytest.mark.parametrize("mapped", [parallel.map_devices, parallel.map_all_devices])
def test_mapped_functions_reduce_over_devices(mapped):
    devices = parallel.device_count()
    x = np.arange(devices * 3, dtype=np.float32).reshape(devices, 3) + 1
    weight = np.array([1.0, 10.0, 100.0], np.float32)

    def function(tree, weight):
        scaled = tree["x"] * weight
        return scaled, lax.psum(scaled, parallel.AXIS), lax.axis_index(parallel.AXIS)

    scaled, total, index = mapped(function, (0, None))({"x": x}, weight)
    np.testing.assert_allclose(scaled, x * weight)
    np.testing.assert_allclose(total, np.broadcast_to((x * weight).sum(0), x.shape))
    np.testing.assert_array_equal(index, np.arange(devices))


@pytest.mark.parametrize("mapped", [parallel.map_devices, parallel.map_all_devices])
def test_mapped_functions_return_one_result_for_all_devices(mapped):
    devices = parallel.device_count()
    x = np.arange(devices, dtype=np.float32) + 1

    def function(x):
        return x, lax.pmean(x, parallel.AXIS)

    each, mean = mapped(function, (0,), (0, None))(x)
    np.testing.assert_allclose(each, x)
    assert mean.shape == ()
    np.testing.assert_allclose(mean, x.mean())


def test_mean_averages_each_leaf_over_devices():
    devices = parallel.device_count()
    x = np.arange(devices * 6, dtype=np.float32).reshape(devices, 2, 3)
    mean = parallel.map_all_devices(lambda x: parallel.mean({"x": x, "first": x[0, 0]}), (0,), None)(x)
    np.testing.assert_allclose(mean["x"], x.mean(0))
    np.testing.assert_allclose(mean["first"], x[:, 0, 0].mean())


def test_a_replicated_argument_needs_no_second_program():
    traced = []

    def function(total, x):
        traced.append(total)
        return total + parallel.mean(x)

    run = parallel.map_all_devices(function, (None, 0), None)
    total = parallel.replicate(np.zeros(3, np.float32))
    x = np.ones((parallel.device_count(), 3), np.float32)
    np.testing.assert_array_equal(run(run(total, x), x), [2, 2, 2])
    assert len(traced) == 1


@pytest.mark.parametrize("count", [1, 5, 9])
def test_masked_sum_over_dealt_rows_is_the_sum_of_all_rows(count):
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    rows, mask = parallel.deal(count, 2)

    def function(x, mask):
        return 2 * x, lax.psum(jnp.sum(x * mask), parallel.AXIS)

    doubled, total = parallel.map_devices(function, (0, 0), (0, None))(values[rows], mask)
    np.testing.assert_allclose(total, values.sum(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parallel.gather(doubled, count), 2 * values, rtol=1e-6)
