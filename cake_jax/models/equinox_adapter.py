"""Splits Equinox modules into an architecture and variables, the form of Linen modules."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import checks
from cake_jax.models import modes
from cake_jax.types import CakeError

# An array of NumPy has no hash, so it cannot be a part of the architecture.
_ARRAYS = jax.Array | np.ndarray
# Arguments of a module's call that `apply` gives.
_KEY, _STATE = "key", "state"
# What the names of the module's own leaves begin with.
_MODULE = "module"


@dataclasses.dataclass(frozen=True)
class EquinoxModule:
    """The architecture of an Equinox module, with an `apply` like that of a Linen module.

    Two of them are equal, with equal hashes, if the structures of their modules are equal.

    Attributes:
      structure: Tree structure of the module and its state.
      names: Name of each leaf in the variables.
      static: Leaves that are not arrays, and None in the place of each array.
      batched: Whether the module takes a whole batch. Otherwise it takes one example.
      channels_first: Whether the module takes images as `[C, H, W]`.
      class_name: Name of the module's class.
    """

    structure: jax.tree_util.PyTreeDef
    names: tuple[str, ...]
    static: tuple[Any, ...]
    batched: bool
    channels_first: bool
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
          keys: The key of each input in training, `[B]`. A batched module gets the first one.
          mutable: If it is not empty, an empty dict is returned too, in the place of updated collections.

        Returns:
          Logits `[B, K]`, or a pair of logits and an empty dict.

        Raises:
          CakeError: The module's mode is not understood, or it has a state in training.
        """
        module, state = self._merge(variables, train)
        if train and state is not None:
            raise CakeError(
                f"model: the state of {self.class_name}, such as batch norm's, cannot be trained; "
                "use a module without state, such as one with layer norm, or a Flax module"
            )
        given: dict[str, Any] = modes.arguments(module, train, known=[_KEY, _STATE])
        takes_key = _KEY in modes.call_parameters(module)
        x = jnp.moveaxis(x, -1, 1) if self.channels_first else x

        def answer(x: Array, key: Array | None = None) -> Any:
            own = {**given, _KEY: key} if takes_key else given
            return module(x, **own) if state is None else module(x, state, **own)[0]

        if self.batched:
            logits = answer(x, None if keys is None else keys[0])
        else:
            logits = jax.vmap(answer)(x) if keys is None else jax.vmap(answer)(x, keys)
        return (logits, {}) if mutable else logits

    def merge(self, variables: Mapping[str, Any]) -> Any:
        """The Equinox module with these variables, in inference mode, for example that of a trained student."""
        return self._merge(variables, train=False)[0]

    def _merge(self, variables: Mapping[str, Any], train: bool) -> tuple[Any, Any]:
        """The module in the given mode, and its state."""
        arrays = {**variables.get("params", {}), **variables.get("others", {})}
        leaves = [
            arrays.get(name, _in_mode(name, leaf, train)) for name, leaf in zip(self.names, self.static, strict=True)
        ]
        parts = jax.tree.unflatten(self.structure, leaves)
        return parts[_MODULE], parts[_STATE]


def split(
    module: Any, *, state: Any = None, batched: bool = False, channels_first: bool = False
) -> tuple[EquinoxModule, dict[str, Any]]:
    """Splits an Equinox module into its architecture and its variables.

    Args:
      module: An `equinox.Module`, or another callable pytree of arrays.
      state: The `equinox.nn.State` of a module that is called as `module(x, state)` and returns a pair.
      batched: Whether the module takes a whole batch.
      channels_first: Whether the module takes images as `[C, H, W]`.

    Returns:
      The architecture, and a dict of the collections that are not empty: `params`, the module's arrays of floats, and
      `others`. Each collection is a dict of arrays by their place in the module.

    Raises:
      CakeError: `module` cannot be called.
    """
    if not callable(module):
        raise CakeError(f"model: {checks.shown(module)} cannot be called; pass a Flax or Equinox module")
    named, structure = jax.tree_util.tree_flatten_with_path({_MODULE: module, _STATE: state})
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named)
    leaves = [_in_mode(name, leaf, train=False) for name, (_, leaf) in zip(names, named, strict=True)]
    static = tuple(None if isinstance(leaf, _ARRAYS) else leaf for leaf in leaves)
    variables: dict[str, dict[str, Any]] = {"params": {}, "others": {}}
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, _ARRAYS):
            leaf = jnp.asarray(leaf)
            is_trained = name.startswith(_MODULE) and jnp.issubdtype(leaf.dtype, jnp.inexact)
            variables["params" if is_trained else "others"][name] = leaf
    adapter = EquinoxModule(structure, names, static, batched, channels_first, type(module).__name__)
    return adapter, {name: collection for name, collection in variables.items() if collection}


def _in_mode(name: str, leaf: Any, train: bool) -> Any:
    """The leaf of this name, or the value of the mode if the leaf is a boolean field that chooses it."""
    field = name.rsplit(".", 1)[-1]
    if field in modes.MODES and isinstance(leaf, bool | Array) and jnp.result_type(leaf) == jnp.bool_:
        return modes.value(field, train)
    return leaf
