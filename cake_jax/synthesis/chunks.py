"""The size of a chunk: the number of sets that take their steps together on one device."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax import cost, parallel
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.teachers import Teacher

# The number of chunks is a multiple of this, or of the number of devices if that is larger. So all devices have work,
# and the samples are the same on 1, 2 and 4 devices.
_CHUNK_MULTIPLE = 4
# Part of an accelerator's memory for the values that the forward pass of a chunk keeps for its gradient. The rest is
# for the teacher, the gradient itself and XLA's own buffers.
_KEPT_PART = 0.25
# Bytes of an accelerator's memory, if the device does not report them. Few accelerators have less.
_USUAL_MEMORY = 8 * 2**30


def sets_per_chunk(teacher: Teacher, settings: SynthesisSettings) -> int:
    """The number c of sets in a chunk.

    Args:
      teacher: The teacher. On a CPU, the cost of its forward pass decides. On an accelerator, its memory decides.
      settings: The settings.

    Returns:
      All sets of a device if a loss term couples the sets. Otherwise `settings.sets_per_chunk`, if it is above 0.
      Otherwise a number that suits the teacher's cost on a CPU, and on an accelerator all sets of a device, or equal
      parts of them if they do not fit into its memory.
    """
    devices = parallel.device_count()
    share = -(-settings.num_sets // devices)
    if settings.couples_sets:
        return share
    if settings.sets_per_chunk:
        return settings.sets_per_chunk
    leaves, structure = jax.tree.flatten(teacher)
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    if jax.default_backend() != "cpu":
        memory = _KEPT_PART * (parallel.device_memory() or _USUAL_MEMORY)
        fitting = max(int(memory // _set_bytes(structure, shapes, settings.num_groups)), 1)
        return math.ceil(share / math.ceil(share / fitting))
    limit = max(cost.CORE_FLOPS / _set_flops(structure, shapes, settings.num_groups), 1.0)
    chunks = math.ceil(settings.num_sets / limit)
    multiple = max(_CHUNK_MULTIPLE, devices)
    chunks = -(-chunks // multiple) * multiple
    return -(-settings.num_sets // chunks)


@functools.lru_cache(maxsize=16)
def _set_flops(structure: jax.tree_util.PyTreeDef, shapes: tuple[jax.ShapeDtypeStruct, ...], num_groups: int) -> float:
    """XLA's count of the floating-point operations of the teacher's answers to one set, at least 1."""
    teacher = jax.tree.unflatten(structure, shapes)
    x = jax.ShapeDtypeStruct((num_groups, *teacher.spec.shape), jnp.float32)
    return max(cost.flops(lambda teacher, x: teacher(x), teacher, x), 1.0)


@functools.lru_cache(maxsize=16)
def _set_bytes(structure: jax.tree_util.PyTreeDef, shapes: tuple[jax.ShapeDtypeStruct, ...], num_groups: int) -> int:
    """The bytes of one set and of the values that the teacher's forward pass keeps for the set's gradient."""
    teacher = jax.tree.unflatten(structure, shapes)

    def kept(sets: int) -> int:
        x = jax.ShapeDtypeStruct((sets * num_groups, *teacher.spec.shape), jnp.float32)
        values = jax.eval_shape(lambda teacher, x: (x, jax.vjp(teacher, x)[1]), teacher, x)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(values))

    # The difference leaves out the teacher's weights, which are kept once.
    return kept(2) - kept(1)
