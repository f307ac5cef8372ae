"""The signature of an augmentation, and how to make one from a function of pixels."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from cake_jax.types import DataSpec


class Augmentation(NamedTuple):
    """A random change of a training image.

    Attributes:
      apply: `(key, image, spec) -> image`, images `[H, W, C]` in normalised units.
      needs_pixels: Whether the specification must have `low` and `high`, and images 1 or 3 channels.
    """

    apply: Callable[[Array, Array, DataSpec], Array]
    needs_pixels: bool = False


def of_pixels(function: Callable[[Array, Array], Array]) -> Augmentation:
    """Makes an augmentation from a function of pixels.

    Values outside the valid range, which synthetic samples may have, are clipped first.

    Args:
      function: `(key, pixels) -> pixels`, images `[H, W, C]` of pixels in [0, 1], C 1 or 3.
    """

    def apply(key: Array, image: Array, spec: DataSpec) -> Array:
        mean, std = jnp.asarray(spec.mean, jnp.float32), jnp.asarray(spec.std, jnp.float32)
        low = spec.low or 0.0
        span = (spec.high or 0.0) - low
        pixels = jnp.clip((image * std + mean - low) / span, 0.0, 1.0)
        return (function(key, pixels) * span + low - mean) / std

    return Augmentation(apply, needs_pixels=True)
