"""What a classifier returns, and how it becomes logits."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

# What a teacher's constructor may be told that the model returns. Log-probabilities are logits.
OUTPUTS = ("logits", "probabilities")
# Smaller probabilities count as this one, whose logarithm is finite in float32.
SMALLEST = 1e-30
# Largest distance of the sum of probabilities from 1.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Converted:
    """The `apply_fn` of a model whose outputs become logits.

    Attributes:
      apply_fn: The model's own function `(variables, x [B, *shape]) -> outputs`.
      num_classes: K, the number of classes.
      outputs: One of `OUTPUTS`.
    """

    apply_fn: Callable[[Any, Array], Any]
    num_classes: int
    outputs: str

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return to_logits(self.apply_fn(variables, x), self.num_classes, self.outputs)


@dataclasses.dataclass(frozen=True)
class Divided:
    """The `apply_fn` of a model whose logits are divided by a temperature.

    Attributes:
      apply_fn: The model's own function `(variables, x [B, *shape]) -> logits [B, K]`.
      temperature: A number above 0.
    """

    apply_fn: Callable[[Any, Array], Array]
    temperature: float

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return self.apply_fn(variables, x) / self.temperature


def to_logits(result: Any, num_classes: int, outputs: str) -> Array:
    """Logits `[B, K]` of what a model returns.

    Args:
      result: An array, or what `array_of` takes. With two classes it may have one output, `[B]` or `[B, 1]`: the logit
        or the probability of class 1.
      num_classes: K, the number of classes.
      outputs: One of `OUTPUTS`.
    """
    array = jnp.asarray(array_of(result))
    if outputs == "probabilities":
        if is_binary(array.shape, num_classes):
            array = jnp.stack([1 - array.reshape(-1), array.reshape(-1)], axis=1)
        return jnp.log(jnp.maximum(array, SMALLEST))
    if is_binary(array.shape, num_classes):
        array = jnp.stack([jnp.zeros_like(array).reshape(-1), array.reshape(-1)], axis=1)
    return array


def array_of(result: Any) -> Any:
    """The array in what a model returns: in `.logits`, under `logits` in a dict, or the first of a tuple."""
    if isinstance(result, Mapping) and "logits" in result:
        return array_of(result["logits"])
    if isinstance(result, tuple | list) and result and not hasattr(result, "logits"):
        return array_of(result[0])
    return getattr(result, "logits", result)


def is_binary(shape: tuple[int, ...], num_classes: int) -> bool:
    """Whether outputs of this shape are one number for each input, and there are two classes."""
    return num_classes == 2 and (len(shape) == 1 or shape[1:] == (1,))


def look_like_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs `[B, K]` are not negative and sum to 1."""
    return bool((outputs >= 0).all() and np.abs(outputs.sum(axis=-1) - 1).max() < _TOLERANCE)
