"""The signature of a start."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from cake_jax.types import DataSpec


class Start(NamedTuple):
    """A distribution p(x) from which start samples are drawn.

    Attributes:
      draw: `(key, G, spec) -> x` draws the start samples of a set, `[G, *spec.shape]` float32, normalised.
      needs_images: Whether inputs must be images.
    """

    draw: Callable[[Array, int, DataSpec], Array]
    needs_images: bool = False
