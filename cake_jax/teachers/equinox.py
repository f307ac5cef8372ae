"""Makes a teacher from an Equinox module."""

from typing import Any

from cake_jax.models.equinox_adapter import split
from cake_jax.teachers.teacher import Teacher, from_linen
from cake_jax.types import CakeError, DataSpec


def from_equinox(
    module: Any,
    spec: DataSpec,
    *,
    state: Any = None,
    batched: bool = False,
    channels_first: bool = False,
    outputs: str = "logits",
) -> Teacher:
    """Returns a teacher from an Equinox module in inference mode.

    Args:
      module: An `equinox.Module`, or another callable pytree of arrays.
      spec: Specification of the inputs.
      state: The `equinox.nn.State` of a module with batch norm. The module is then called as `module(x, state)` and
        returns a pair. The state does not change.
      batched: Whether the module takes a batch `[B, ...]`. By default it takes one example, as Equinox's layers do.
      channels_first: Whether the module takes images as `[C, H, W]`, as Equinox's convolutions do. By default it takes
        `[H, W, C]`.
      outputs: What the module returns: see `from_function`.

    Raises:
      CakeError: The module does not fit `spec`, its mode is not understood, or its outputs are not finite, or not what
        `outputs` says.
    """
    if channels_first and not spec.is_image:
        raise CakeError(f"from_equinox: channels_first is for images, not for inputs of shape {spec.shape}")
    adapter, variables = split(module, state=state, batched=batched, channels_first=channels_first)
    return from_linen(adapter, variables, spec, outputs=outputs)
