"""A Flax NNX module as a teacher."""

from typing import Any

from cake_jax.models.nnx_module import split
from cake_jax.teachers.teacher import Teacher, from_linen
from cake_jax.types import DataSpec


def from_nnx(module: Any, spec: DataSpec) -> Teacher:
    """A teacher from a Flax NNX module, in evaluation mode.

    Args:
      module: A `flax.nnx.Module`, called as `module(x)`; its weights are copied, it stays as it is.
      spec: The input domain.

    Returns:
      The teacher; equal architectures share one compiled program.

    Raises:
      CakeError: The module does not fit `spec`, or its logits are not finite.
    """
    adapter, variables = split(module)
    return from_linen(adapter, variables, spec)
