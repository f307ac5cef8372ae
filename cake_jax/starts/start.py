"""The signature of a start, and what starts share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from cake_jax.types import DataSpec

# Half of the range of an unbounded domain, in normalised units.
_UNBOUNDED = 2.0


class Start(NamedTuple):
    """A distribution p(x) from which start samples are drawn.

    Attributes:
      draw: `(key, G, spec) -> x` draws the start samples of a set, `[G, *spec.shape]` float32, normalised.
      needs_images: Whether inputs must be images.
    """

    draw: Callable[[Array, int, DataSpec], Array]
    needs_images: bool = False


def in_range(pixels: Array, spec: DataSpec) -> Array:
    """Maps pixels in [0, 1] to the valid range of the specification, in normalised units."""
    low, high = (jnp.nan_to_num(bound, posinf=_UNBOUNDED, neginf=-_UNBOUNDED) for bound in spec.bounds)
    return low + (high - low) * pixels
