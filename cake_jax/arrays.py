"""Labels and inputs of users as arrays: accepted where their meaning is certain, otherwise refused in one line."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from cake_jax import checks
from cake_jax.types import CakeError, DataSpec

# Inputs that are so many times farther out than the bounds are pixels that were not normalised.
_FAR = 10.0


def as_classes(y: Any, num_classes: int, count: int, field: str = "y") -> np.ndarray:
    """Class numbers `[N]` int32 of labels in another form.

    Args:
      y: Labels as a list, an array or a tensor: `[N]` or `[N, 1]` numbers, or `[N, K]` one-hot.
      num_classes: K, the number of classes.
      count: N, the number of inputs.
      field: Name of the labels, for messages.

    Raises:
      CakeError: The labels have another shape, are no whole numbers, or are not from 0 to K - 1.
    """
    labels = as_array(y, field)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.shape[1] == num_classes and _is_one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.shape != (count,):
        raise CakeError(f"{field}: labels of shape {labels.shape} do not fit {count} inputs of {num_classes} classes")
    if (labels != np.floor(labels)).any():
        raise CakeError(f"{field}: labels must be whole numbers from 0 to {num_classes - 1}")
    if count and (labels.min() < 0 or labels.max() >= num_classes):
        hint = "; subtract 1" if labels.min() == 1 and labels.max() == num_classes else ""
        low, high = int(labels.min()), int(labels.max())
        raise CakeError(
            f"{field}: labels are from {low} to {high}, but {num_classes} classes are 0 to {num_classes - 1}{hint}"
        )
    return labels.astype(np.int32)


def as_inputs(x: Any, spec: DataSpec, field: str = "x") -> np.ndarray:
    """Normalised inputs `[N, *spec.shape]` float32.

    Args:
      x: Inputs as a list, an array or a tensor.
      spec: Their specification.
      field: Name of the inputs, for messages.

    Raises:
      CakeError: There are no inputs, or they have another shape, are not finite, or are pixels that were not
        normalised.
    """
    inputs = as_array(x, field)
    if inputs.shape[1:] != spec.shape or inputs.ndim == 0:
        first = spec.shape[-1:] + spec.shape[:-1]
        hint = "; move the channels to the last axis" if spec.is_image and inputs.shape[1:] == first else ""
        raise CakeError(f"{field}: each input has shape {inputs.shape[1:]}, not {spec.shape}{hint}")
    if not len(inputs):
        raise CakeError(f"{field}: there are no inputs")
    with np.errstate(over="ignore"):
        inputs = inputs.astype(np.float32, copy=False)
    if not np.isfinite(inputs).all():
        raise CakeError(f"{field}: not all inputs are finite")
    largest = float(np.abs(np.concatenate(spec.bounds)).max())
    if np.abs(inputs).max() > _FAR * largest:
        raise CakeError(
            f"{field}: has values up to {np.abs(inputs).max():.0f}, but normalised inputs are at most {largest:.1f}; "
            f"pass spec.normalize(pixels), with pixels from {spec.low:g} to {spec.high:g}"
        )
    return inputs


def as_array(value: Any, field: str) -> np.ndarray:
    """A NumPy array of numbers of a list, an array or a tensor of PyTorch on any device."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value  # NumPy lacks bfloat16
        array = np.asarray(value)
        is_odd = array.dtype == object or (array.dtype.kind == "V" and jnp.issubdtype(array.dtype, np.floating))
        array = array.astype(float) if is_odd else array
    except (TypeError, ValueError):
        raise CakeError(f"{field}: {checks.shown(value)} is not an array of numbers of equal shapes") from None
    if array.dtype.kind not in "iufb":
        raise CakeError(f"{field}: {checks.shown(value)} holds other things than numbers")
    return array


def _is_one_hot(labels: np.ndarray) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
