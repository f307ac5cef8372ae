"""Exports the compiled programs of the package for CUDA and TPU, on any machine."""

import contextlib
import re
import sys
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cake_jax import parallel

PLATFORMS = ("cuda", "tpu")
# The only custom call that JAX may insert: a check of symbolic shapes, which is done before a program runs.
ALLOWED = {"shape_assertion"}


def check(program):
    """Fails unless an exported program runs on an accelerator without the host."""
    assert program.platforms == PLATFORMS
    calls = set(re.findall(r"custom_call @([\w.$]+)", program.mlir_module()))
    assert calls <= ALLOWED, f"{program.fun_name} calls {sorted(calls - ALLOWED)}"


class Exporter:
    """Stands in for a compiled function: it exports the program, and returns random results of the right shapes.

    Each row of a result sums to 1, as scores do.
    """

    def __init__(self, function, programs):
        self._function, self._programs = function, programs

    def __getattr__(self, name):
        return getattr(self._function, name)

    def __call__(self, *args, **kwargs):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._function(*args, **kwargs)  # a part of a larger program
        program = jax.export.export(self._function, platforms=PLATFORMS)(*args, **kwargs)
        self._programs.append(program)
        return jax.tree.unflatten(program.out_tree, map(_random, program.out_avals))


def _random(aval):
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), aval.shape)
    values = np.asarray(np.random.default_rng(0).random(aval.shape, np.float32))
    return np.asarray(values / values.sum(axis=-1, keepdims=True) if aval.ndim else values).astype(aval.dtype)


@contextlib.contextmanager
def exporting(backend):
    """Exports each program of the package instead of running it, in its form for `backend`. Yields the programs."""
    programs, jit = [], jax.jit
    compiled = type(jit(lambda: None))
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("cake_jax")]

    def map_devices(function, in_axes, out_axes=0):
        return Exporter(jit(_on_mesh(function, in_axes, out_axes)), programs)

    def fresh():
        for module in modules:
            for value in list(vars(module).values()):
                for clear in ("clear_cache", "cache_clear"):  # of `jax.jit`, and of `functools.cache`
                    if hasattr(value, clear):
                        getattr(value, clear)()

    with contextlib.ExitStack() as stack:
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, compiled):
                    stack.enter_context(mock.patch.object(module, name, Exporter(value, programs)))
        stack.enter_context(mock.patch.object(jax, "jit", lambda *args, **kw: Exporter(jit(*args, **kw), programs)))
        stack.enter_context(mock.patch.object(jax, "default_backend", return_value=backend))
        for name in ("map_devices", "map_all_devices"):
            stack.enter_context(mock.patch.object(parallel, name, map_devices))
        # Functions that were traced for another backend, or compiled outside, must not be used again.
        fresh()
        stack.callback(fresh)
        yield programs


def _on_mesh(function, in_axes, out_axes):
    """`jax.pmap` in the words of `jax.shard_map`, because programs of `pmap` cannot be exported."""
    spec = {0: PartitionSpec(parallel.AXIS), None: PartitionSpec()}

    def on_device(*args):
        mapped = zip(args, in_axes, strict=True)
        result = function(*(jax.tree.map(lambda leaf: leaf[0], arg) if axis == 0 else arg for arg, axis in mapped))
        return jax.tree.map(lambda leaf: leaf[None], result) if out_axes == 0 else result

    mesh = Mesh(np.array(jax.local_devices()), parallel.AXIS)
    return jax.shard_map(
        on_device, mesh=mesh, in_specs=tuple(spec[axis] for axis in in_axes), out_specs=spec[out_axes], check_vma=False
    )
