"""Makes a teacher from an Equinox module."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.teachers.teacher import Teacher, checked
from cake_jax.types import CakeError, DataSpec


@dataclasses.dataclass(frozen=True)
class EquinoxApply:
    """The `apply_fn` of an Equinox module. It is equal for equal architectures.

    Attributes:
      structure: Tree structure of the module.
      static: Leaves of the module that are not arrays, and None in the place of each array.
      batched: Whether the module takes a whole batch.
      channels_first: Whether the module takes images as `[C, H, W]`.
    """

    structure: jax.tree_util.PyTreeDef
    static: tuple[Any, ...]
    batched: bool
    channels_first: bool

    def __call__(self, arrays: list[Array], x: Array) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        rest = iter(arrays)
        leaves = [next(rest) if leaf is None else leaf for leaf in self.static]
        module, *state = jax.tree.unflatten(self.structure, leaves)
        x = jnp.moveaxis(x, -1, 1) if self.channels_first else x

        def logits(x: Array) -> Array:
            return module(x, *state)[0] if state else module(x)

        return logits(x) if self.batched else jax.vmap(logits)(x)


def from_equinox(
    module: Any,
    spec: DataSpec,
    *,
    state: Any = None,
    batched: bool = False,
    channels_first: bool = False,
    outputs: str = "logits",
) -> Teacher:
    """Returns a teacher from an Equinox module in inference mode. It needs the package `equinox`.

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
      CakeError: Equinox is missing, the module does not fit `spec`, or its outputs are not finite, or not what
        `outputs` says.
    """
    try:
        import equinox
    except ImportError as error:
        raise CakeError("from_equinox: needs Equinox (pip install equinox)") from error
    if channels_first and not spec.is_image:
        raise CakeError(f"from_equinox: channels_first is for images, not for inputs of shape {spec.shape}")
    parts = (equinox.nn.inference_mode(module), *(() if state is None else (state,)))
    leaves, structure = jax.tree.flatten(parts)
    arrays = [leaf for leaf in leaves if equinox.is_array(leaf)]
    static = tuple(None if equinox.is_array(leaf) else leaf for leaf in leaves)
    return checked(Teacher(arrays, EquinoxApply(structure, static, batched, channels_first), spec), outputs=outputs)
