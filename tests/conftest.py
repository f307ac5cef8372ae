"""For every test: two CPU devices, so that the code for several runs on any machine, and no cache of earlier runs.

Programs that a test's processes compile are kept for the other tests, as a user's are for later runs.
"""

import atexit
import os
import shutil
import tempfile

import jax

jax.config.update("jax_num_cpu_devices", 2)

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cake_jax-test-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["XDG_CACHE_HOME"] + "/compiled")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["XDG_CACHE_HOME"] + "/compiled"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
