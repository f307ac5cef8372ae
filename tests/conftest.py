"""Two CPU devices for every test, so that the code for several devices runs on any machine."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
