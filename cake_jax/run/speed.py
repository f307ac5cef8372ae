"""The speed of this machine, measured once and kept in the cache folder."""

import contextlib
import json
import platform
import time
from pathlib import Path

import jax
import numpy as np

from cake_jax import parallel
from cake_jax.files import cache_folder, write_atomically

# The share of a matrix product's rate that networks reach, with the operations that XLA counts before it compiles. On a
# CPU, the networks of the configs reach 0.3 to 1.
_EFFICIENCY = 0.55
# Side of the measured matrices, and the time that the measurement takes.
_SIDE, _SECONDS = 2048, 0.4


def flops_per_second() -> float:
    """The floating-point operations that all devices of this process do in a second, in a typical network.

    The first call on a machine measures a matrix product. Later calls read the result from the cache folder, in which
    each combination of processor, devices and JAX version has its own entry.
    """
    device = jax.local_devices()[0].device_kind
    name = f"{_processor()}, {parallel.device_count()} x {device}, jax {jax.__version__}"
    path = cache_folder("speed") / "flops_per_second.json"
    try:
        known = dict(json.loads(path.read_text()))
        return float(known[name])
    except (OSError, ValueError, TypeError):
        known = {}
    except KeyError:
        pass
    known[name] = _EFFICIENCY * _matrix_product_rate()
    with contextlib.suppress(OSError):  # no home folder, or a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(known, indent=1).encode())
    return known[name]


def _matrix_product_rate() -> float:
    """The operations per second of a float32 matrix product on each device at once. The fastest product counts.

    On a CPU, the processor's time counts, so that other programs on the machine do not matter.
    """
    devices = parallel.device_count()
    matrices = np.ones((devices, _SIDE, _SIDE), np.float32)
    multiply = parallel.map_devices(lambda a: a @ a, in_axes=(0,))
    matrices = jax.block_until_ready(multiply(matrices))  # compiles, and moves the matrices to the devices
    on_cpu = jax.default_backend() == "cpu"
    clock, clocks = (time.process_time, devices) if on_cpu else (time.perf_counter, 1)
    fastest, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        started = clock()
        jax.block_until_ready(multiply(matrices))
        fastest = min(fastest, (clock() - started) / clocks)
    return devices * 2 * _SIDE**3 / fastest


def _processor() -> str:
    """The name of the processor's model, or of its architecture if the system does not tell the model."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
