"""Makes a teacher from a Flax NNX module."""

from typing import Any

from cake_jax.models.nnx_adapter import split
from cake_jax.teachers.teacher import Teacher, from_linen
from cake_jax.types import DataSpec


def from_nnx(module: Any, spec: DataSpec) -> Teacher:
    """Returns a teacher from a Flax NNX module in evaluation mode.

    Teachers of equal architectures share one compiled program.

    Args:
      module: A `flax.nnx.Module`, called as `module(x)`. Its weights are copied, and it does not change.
      spec: Specification of the inputs.

    Raises:
      CakeError: The module does not fit `spec`, or its logits are not finite.
    """
    adapter, variables = split(module)
    return from_linen(adapter, variables, spec)
