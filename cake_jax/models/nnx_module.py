"""Flax NNX modules in the form of the others: an architecture apart from its variables.

`flax.nnx.bridge.ToLinen` does this for a class and its arguments. It builds the module anew in every call, hands
`train=True` on to a `__call__` that does not have it, and cannot start from weights that are there: hence this.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
from jax import Array

from cake_jax.types import CakeError


@dataclasses.dataclass(frozen=True)
class NNXModule:
    """The architecture of an NNX module, with the `apply` of a Linen one. Equal and hashed by its structure.

    Attributes:
      graphdef: As `nnx.split` gives it.
    """

    graphdef: Any

    def apply(self, variables: Mapping[str, Any], x: Array, *, train: bool = False, mutable: Sequence[str] = ()) -> Any:
        """Logits `[B, K]` of x `[B, *shape]`; in training with the updated batch statistics.

        Args:
          variables: As `split` gives them.
          x: Inputs.
          train: Whether the module is in its training mode.
          mutable: Not empty: the collections that change are returned too.

        Returns:
          Logits, or a pair of logits and collections.

        Raises:
          CakeError: The module draws random numbers in training, as dropout does.
        """
        module = self.merge(variables)
        if train and nnx.to_pure_dict(nnx.state(module, nnx.RngState)):
            raise CakeError("model: the trainer draws no random numbers for a model; leave dropout out of the module")
        module.train() if train else module.eval()
        logits = module(x)
        if not mutable:
            return logits
        state = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
        return logits, {"batch_stats": state} if state else {}

    def merge(self, variables: Mapping[str, Any]) -> Any:
        """The NNX module with these variables: how a trained one is taken out again."""
        return nnx.merge(self.graphdef, *(variables.get(name, {}) for name in ("params", "batch_stats", "others")))


def split(module: Any) -> tuple[NNXModule, dict[str, Any]]:
    """An NNX module as architecture and variables.

    Args:
      module: A `flax.nnx.Module`; it stays as it is.

    Returns:
      The architecture, and a dict of `params`, `batch_stats` and `others`, as far as there are any, each a nested dict
      of arrays.

    Raises:
      CakeError: It is no NNX module.
    """
    if not isinstance(module, nnx.Module):
        raise CakeError(f"model: {type(module).__name__} is no flax.nnx.Module")
    graphdef, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    collections = zip(("params", "batch_stats", "others"), map(nnx.to_pure_dict, states), strict=True)
    return NNXModule(graphdef), {name: state for name, state in collections if state}
