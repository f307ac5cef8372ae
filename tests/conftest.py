"""The setup of all tests: two CPU devices, so that sharded code is tested on any machine, and an empty cache.

Compiled programs are kept in the cache: the processes of one test session share them, as runs of a user do. Tests
compile more than they compute, so LLVM does not optimize. `XLA_FLAGS= pytest` tests what users run.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import jax
import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits the environment of the process that started it
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cake_jax-test-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["XDG_CACHE_HOME"] + "/compiled"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_configure(config):
    """Ignores a program that another process has not written in full yet: JAX then compiles it again."""
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry")


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drops the compiled programs after a file of tests if they take many memory maps, which Linux limits to 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()
