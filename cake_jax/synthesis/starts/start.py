"""The signature of a start."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from cake_jax.types import DataSpec


class Start(NamedTuple):
    """A distribution p(x) that samples start from.

    Attributes:
      draw: `(key, G, spec) -> x [G, *spec.shape]` float32, normalised: the G samples of a set.
      needs_images: Whether inputs must be images.
    """

    draw: Callable[[Array, int, DataSpec], Array]
    needs_images: bool = False
