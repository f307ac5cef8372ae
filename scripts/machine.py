"""The machine of a measurement: its description, and its fastest arithmetic."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax import parallel

# Side of the multiplied matrices.
MATRIX_SIDE = 2048


def describe() -> dict[str, Any]:
    """The processor, the number of usable cores, the vector units and the version of JAX."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flag = next((line for line in lines if line.startswith("flags")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": len(parallel.usable_cores()),
        "vector_units": sorted(name for name in flag.split() if name.startswith(("avx", "amx"))),
        "jax": jax.__version__,
    }


def matrix_product(dtype: Any) -> Callable[[], Any]:
    """A function that computes one product of square matrices on every device. bf16 matrices have float32 sums."""
    matrix = np.ones((jax.local_device_count(), MATRIX_SIDE, MATRIX_SIDE), dtype)
    run = parallel.map_devices(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32), in_axes=(0,))
    matrix = run(matrix).astype(dtype) / MATRIX_SIDE
    return lambda: run(matrix)
