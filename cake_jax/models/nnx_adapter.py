"""Splits Flax NNX modules into an architecture and variables, the form of Linen modules.

`flax.nnx.bridge.ToLinen` does not serve here. It takes a class and its arguments, and builds the module anew in every
call. It passes `train=True` to a `__call__` without such an argument, and cannot start from existing weights.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array

from cake_jax.models import modes
from cake_jax.types import CakeError

# An argument of a module's call that gets the random numbers of a training step.
_RNGS = "rngs"
# Every NNX module has a method `train`, which is no field.
_FIELDS = [name for name in modes.MODES if name != "train"]


@dataclasses.dataclass(frozen=True)
class NNXModule:
    """The architecture of an NNX module, with an `apply` like that of a Linen module.

    Two of them are equal, with equal hashes, if the structures of their modules are equal.

    Attributes:
      graphdef: The graph definition that `nnx.split` returns.
      class_name: Name of the module's class.
    """

    graphdef: Any
    class_name: str

    def apply(
        self,
        variables: Mapping[str, Any],
        x: Array,
        *,
        train: bool = False,
        keys: Array | None = None,
        mutable: Sequence[str] = (),
    ) -> Any:
        """Applies the module to inputs.

        Args:
          variables: Variables in the form that `split` returns.
          x: Inputs `[B, *shape]`.
          train: Whether the module is in training mode.
          keys: The key of each input in training, `[B]`. The module draws for the whole batch, from the first key.
          mutable: If it is not empty, the updated batch statistics are returned too.

        Returns:
          Logits `[B, K]`, or a pair of logits and `{"batch_stats": ...}`. That dict is empty without batch statistics.

        Raises:
          CakeError: The module's mode is not understood.
        """
        module = self.merge(variables)
        given: dict[str, Any] = modes.arguments(module, train, known=[_RNGS])
        if _RNGS in modes.call_parameters(module):
            given[_RNGS] = None if keys is None else nnx.Rngs(keys[0])
        module.set_attributes(**{name: modes.value(name, train) for name in _FIELDS}, raise_if_not_found=False)
        if keys is not None:
            _reseed(module, jax.random.fold_in(keys[0], 1))
        logits = module(x, **given)
        if not mutable:
            return logits
        state = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
        return logits, {"batch_stats": state} if state else {}

    def merge(self, variables: Mapping[str, Any]) -> Any:
        """The NNX module with these variables, for example those of a trained student."""
        return nnx.merge(self.graphdef, *(variables.get(name, {}) for name in ("params", "batch_stats", "others")))


def split(module: Any) -> tuple[NNXModule, dict[str, Any]]:
    """Splits an NNX module into its architecture and its variables.

    Args:
      module: A `flax.nnx.Module`. It is not changed.

    Returns:
      The architecture, and a dict of the collections `params`, `batch_stats` and `others` that are not empty. Each
      collection is a nested dict of arrays.

    Raises:
      CakeError: `module` is not an NNX module.
    """
    if not isinstance(module, nnx.Module):
        raise CakeError(f"model: {type(module).__name__} is no flax.nnx.Module; pass an instance of one")
    graphdef, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    collections = zip(("params", "batch_stats", "others"), map(nnx.to_pure_dict, states), strict=True)
    return NNXModule(graphdef, type(module).__name__), {name: state for name, state in collections if state}


def _reseed(module: Any, key: Array) -> None:
    """Gives each stream of random numbers in a module its own key."""
    streams = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngStream)]
    for number, stream in enumerate(streams):
        stream.key[...] = jax.random.split(jax.random.fold_in(key, number), stream.key[...].shape)
