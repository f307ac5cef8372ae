"""How a module is told whether it trains: by arguments of its call or by fields, under one of a few names.

A name that is not understood is refused, because a model in the wrong mode answers wrongly without an error.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from cake_jax import parallel
from cake_jax.types import CakeError, first_line

# The names of arguments and fields that choose the mode, with the value that means training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
# An argument whose name begins like this says what a module returns, not how it computes.
_RESULTS = ("return_", "output_")
# Annotations of booleans, which may be strings.
_BOOLEANS = (bool, bool | None, "bool", "bool | None", "Optional[bool]")
# The layers that differ between training and evaluation.
_LAYERS = nn.BatchNorm | nn.Dropout | nn.MultiHeadDotProductAttention


def value(name: str, train: bool) -> bool:
    """The value of a name in `MODES` in training or in evaluation."""
    return MODES[name] == train


def arguments(module: Any, train: bool, known: Sequence[str] = ()) -> dict[str, bool]:
    """The arguments of a module's call that choose the mode, with their values.

    Args:
      module: A module of Flax Linen, Flax NNX or Equinox.
      train: Whether the module is in training mode.
      known: Names of other arguments that the caller gives.

    Returns:
      One value for each argument whose name is in `MODES`. Empty if there is none.

    Raises:
      CakeError: Another argument needs a value, is a boolean or a string, or stands for any name.
    """
    parameters = call_parameters(module)
    if isinstance(module, nn.Sequential | nnx.Sequential):
        # It hands its arguments on to its first layer.
        first = module.layers[0] if module.layers else None
        return arguments(first, train, known) if isinstance(first, nn.Module | nnx.Module) else {}
    call = f"model: {type(module).__name__}.__call__"
    names = ", ".join(MODES)
    for parameter in list(parameters.values())[1:]:
        name, has_default = parameter.name, parameter.default is not parameter.empty
        if name in MODES or name in known or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            raise CakeError(f"{call} takes **{name}, which hides the name of its mode; name it as one of {names}")
        is_flag = isinstance(parameter.default, bool | str) or parameter.annotation in _BOOLEANS
        if not has_default or (is_flag and not name.startswith(_RESULTS)):
            raise CakeError(
                f"{call}: the argument '{name}' is not understood, and may be its mode; "
                f"name a mode as one of {names}, and give any other argument its value in a module around this one"
            )
    return {name: value(name, train) for name in parameters if name in MODES}


def call_parameters(module: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a module's call, by name. The first one is its input."""
    return dict(inspect.signature(module).parameters)


def class_name(module: Any) -> str:
    """The name of the class of a Linen module, or of the module that an adapter such as `NNXModule` holds."""
    return getattr(module, "class_name", type(module).__name__)


def init(module: nn.Module, key: Array, x: Any) -> Any:
    """The variables of a Linen module, initialised in evaluation mode for inputs like x `[B, *shape]`."""
    module, given = _in_mode(module, train=False)
    return module.init(key, x, **given)


def shapes(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """Shapes and types of the variables of a Linen module for inputs of a shape. Nothing is computed."""
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda key, x: init(module, key, x), jax.random.key(0), x)


def apply(
    module: Any, variables: Any, x: Any, *, train: bool = False, keys: Array | None = None, mutable: Sequence[str] = ()
) -> Any:
    """Applies a module in training or in evaluation mode.

    Args:
      module: A Linen module, or an object with this `apply`, such as `NNXModule`.
      variables: Collections `{"params": ..., ...}`.
      x: Inputs `[B, *shape]`.
      train: Whether the module is in training mode.
      keys: The key of each input in training, `[B]`, for modules that draw random numbers. A Linen or NNX module draws
        for the whole batch, from the first key.
      mutable: If it is not empty, the updated collections of these names are returned too.

    Returns:
      What the module returns, or the pair of that and the updated collections.

    Raises:
      CakeError: The module's mode is not understood, or does not reach one of its layers.
    """
    if not isinstance(module, nn.Module):
        return module.apply(variables, x, train=train, keys=keys, mutable=mutable)
    rngs = None
    if keys is not None:
        # Flax draws from "params" under every name that is not given, such as "drop_path".
        rngs = {"dropout": keys[0], "params": jax.random.fold_in(keys[0], 1)}

    def check(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, _LAYERS):
            _check_layer(module, context.module, args, kwargs, train)
        return call(*args, **kwargs)

    own, given = _in_mode(module, train)
    with nn.intercept_methods(check):
        return own.apply(variables, x, rngs=rngs, mutable=list(mutable) or False, **given)


def check_training(module: Any, variables: Any, x: Array) -> None:
    """Refuses a module that fails in training mode. Nothing is computed.

    Args:
      module: A module that `apply` takes.
      variables: Its variables.
      x: Inputs `[B, *shape]`.

    Raises:
      CakeError: The module fails. The message has the reason.
    """

    def forward(x: Array) -> Any:
        keys = jax.random.split(jax.random.key(0), len(x))
        return apply(module, variables, x, train=True, keys=keys, mutable=["batch_stats"])

    try:
        # A layer may take means over the devices.
        jax.eval_shape(jax.vmap(forward, axis_name=parallel.AXIS), x[None])
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(f"model: {class_name(module)} fails in training mode: {first_line(error)}") from error


def _in_mode(module: nn.Module, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    """A Linen module whose fields have the values of the mode, and the arguments of its call that choose the mode."""
    given = arguments(module, train)
    fields: dict[str, Any] = {
        name: None if name in given else value(name, train)  # Flax refuses a value in both places
        for name in MODES
        if isinstance(getattr(module, name, None), bool)
    }
    return module.clone(**fields) if fields else module, given


def _check_layer(module: nn.Module, layer: Any, args: tuple, kwargs: dict[str, Any], train: bool) -> None:
    """Refuses a layer that is in another mode than its module."""
    name = "use_running_average" if isinstance(layer, nn.BatchNorm) else "deterministic"
    if not getattr(layer, "rate", getattr(layer, "dropout_rate", 1)):
        return
    given = inspect.signature(layer).bind(*args, **kwargs).arguments.get(name)
    found = getattr(layer, name) if given is None else given
    if isinstance(found, bool) and found != value(name, train):
        stage, other = ("training", "evaluation") if train else ("evaluation", "training")
        raise CakeError(
            f"model: {'/'.join(layer.path)} in {type(module).__name__} is in {other} mode during {stage}; "
            f"write a module whose __call__ has the argument train, and give this layer {name}=not train"
        )
