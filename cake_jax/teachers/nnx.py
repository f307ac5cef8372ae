"""Makes a teacher from a Flax NNX module."""

from typing import Any

from cake_jax.models.nnx_adapter import split
from cake_jax.teachers.teacher import Teacher, from_linen
from cake_jax.types import DataSpec


def from_nnx(module: Any, spec: DataSpec, *, outputs: str = "logits") -> Teacher:
    """Returns a teacher from a Flax NNX module in evaluation mode.

    Teachers of equal architectures share one compiled program.

    Args:
      module: A `flax.nnx.Module`, called as `module(x)`, with its mode under one of the names in `models.modes.MODES`.
        Its weights are copied, and it does not change.
      spec: Specification of the inputs.
      outputs: What the module returns: see `from_function`.

    Raises:
      CakeError: The module does not fit `spec`, its mode is not understood, or its outputs are not finite, or not what
        `outputs` says.
    """
    adapter, variables = split(module)
    return from_linen(adapter, variables, spec, outputs=outputs)
