"""Starts for images: Gaussian noise summed over several scales. Neighbouring pixels are similar, as in images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.starts.start import Start
from cake_jax.types import DataSpec


def smooth(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws Gaussian noise at four scales. Coarse scales are slightly stronger, as in natural images.

    The logits of image teachers vary far more over these inputs than over inputs with independent pixels.

    Args:
      key: A JAX random key.
      num_groups: G, the number of samples in a set.
      spec: Specification of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32, mean 0, variance about 1.
    """
    amplitudes = [0.5 * 2 ** (octave / 4) for octave in range(4)]
    return octaves(key, amplitudes, (num_groups, *spec.shape))


def contrasted(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws noise at three scales with strong contrast, clipped to the valid range. Many pixels are black or white.

    Args:
      key: A JAX random key.
      num_groups: G, the number of samples in a set.
      spec: Specification of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32.
    """
    x = octaves(key, [0.75, 1.5, 0.75], (num_groups, *spec.shape))
    low, high = spec.bounds
    return jnp.clip(x, low, high)


def octaves(key: Array, amplitudes: Sequence[float], shape: tuple[int, ...]) -> Array:
    """Sums Gaussian noise over scales of 1, 2, 4 ... pixels.

    Args:
      key: A JAX random key.
      amplitudes: The standard deviation at each scale, the finest first.
      shape: Shape of the result, `[G, H, W, C]`.

    Returns:
      The noise, `[G, H, W, C]` float32.
    """
    groups, height, width, channels = shape
    x = jnp.zeros(shape)
    for octave, (amplitude, octave_key) in enumerate(
        zip(amplitudes, jax.random.split(key, len(amplitudes)), strict=True)
    ):
        coarse = (groups, -(-height // 2**octave), -(-width // 2**octave), channels)
        x += amplitude * jax.image.resize(jax.random.normal(octave_key, coarse), shape, "cubic")
    return x


SMOOTH = Start(smooth, needs_images=True)
CONTRASTED = Start(contrasted, needs_images=True)
