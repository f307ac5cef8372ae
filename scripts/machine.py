"""Describes the machine of a measurement."""

import os
import platform
from pathlib import Path
from typing import Any

import jax


def describe() -> dict[str, Any]:
    """The processor, the number of usable cores, the vector units and the version of JAX."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flag = next((line for line in lines if line.startswith("flags")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "vector_units": sorted(name for name in flag.split() if name.startswith(("avx", "amx"))),
        "jax": jax.__version__,
    }
