"""Layers of an architecture: their arrays, and how these lie in PyTorch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """The conversion of one array between our layout and PyTorch's.

    Attributes:
      to_torch: Function from our layout to PyTorch's.
      from_torch: The inverse of `to_torch`.
    """

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda array: array, lambda array: array)
# Ours is [in, out], PyTorch's is [out, in].
MATRIX = Layout(np.transpose, np.transpose)
# Ours is [h, w, in, out], PyTorch's is [out, in, h, w].
KERNEL = Layout(lambda array: array.transpose(3, 2, 0, 1), lambda array: array.transpose(2, 3, 1, 0))


class Array(NamedTuple):
    """One array of a layer.

    Attributes:
      collection: Collection of our variables that holds the array.
      ours: Our name of the array.
      torch: PyTorch's name of the array.
      layout: Conversion between the two layouts.
    """

    collection: str
    ours: str
    torch: str
    layout: Layout


BIAS = Array("params", "bias", "bias", SAME)
CONV = (Array("params", "kernel", "weight", KERNEL), BIAS)
DENSE = (Array("params", "kernel", "weight", MATRIX), BIAS)
LAYER_NORM = (Array("params", "scale", "weight", SAME), BIAS)
BATCH_NORM = (
    *LAYER_NORM,
    Array("batch_stats", "mean", "running_mean", SAME),
    Array("batch_stats", "var", "running_var", SAME),
)


def window(height: int, width: int, *, flat: bool = False) -> tuple[Array, ...]:
    """The arrays of a dense layer over windows of pixels, whose kernel is `[h w in, out]` here.

    In PyTorch the layer is a convolution, `[out, in, h, w]`, or with `flat` a dense layer, `[out, in h w]`.
    """

    def to_torch(array: np.ndarray) -> np.ndarray:
        kernel = KERNEL.to_torch(array.reshape(height, width, -1, array.shape[-1]))
        return kernel.reshape(len(kernel), -1) if flat else kernel

    def from_torch(array: np.ndarray) -> np.ndarray:
        kernel = KERNEL.from_torch(array.reshape(len(array), -1, height, width))
        return kernel.reshape(-1, len(array))

    return Array("params", "kernel", "weight", Layout(to_torch, from_torch)), BIAS


class Layer(NamedTuple):
    """One layer of a naming.

    Attributes:
      ours: Path of the layer in a collection of our variables, separated by slashes. Empty for the collection itself.
      torch: Name of the layer in PyTorch. If it is empty or ends in an underscore, it is the prefix of the arrays'
        names. Otherwise a dot is added.
      arrays: Arrays of the layer. A bias that our layer lacks is left out.
    """

    ours: str
    torch: str
    arrays: tuple[Array, ...]
