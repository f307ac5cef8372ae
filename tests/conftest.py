"""For every test: two CPU devices, so that the code for several runs on any machine, and no cache of earlier runs."""

import atexit
import os
import shutil
import tempfile

import jax

jax.config.update("jax_num_cpu_devices", 2)

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cake_jax-test-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
