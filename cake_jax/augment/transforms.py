"""Crop, flip and cutout of one image. They move or remove values and compute no new ones."""

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.augment.augmentation import Augmentation
from cake_jax.types import DataSpec


def crop(key: Array, image: Array, spec: DataSpec) -> Array:
    """Shifts the image by up to an eighth of its side in each direction.

    The part that moves in is black. Without `spec.low` it is the mean.

    Args:
      key: A JAX random key.
      image: `[H, W, C]`, normalised.
      spec: Specification of the inputs.

    Returns:
      A random window `[H, W, C]` of the padded image.
    """
    height, width, channels = image.shape
    top, left = height // 8, width // 8
    mean, std = jnp.asarray(spec.mean, jnp.float32), jnp.asarray(spec.std, jnp.float32)
    black = 0.0 if spec.low is None else (spec.low - mean) / std
    padded = jnp.broadcast_to(black, (height + 2 * top, width + 2 * left, channels))
    padded = padded.at[top : top + height, left : left + width].set(image)
    return dm_pix.random_crop(key, padded, image.shape)


def flip(key: Array, image: Array, spec: DataSpec) -> Array:
    """Mirrors the image `[H, W, C]` left to right with probability 1/2. `spec` is not used."""
    return jnp.where(jax.random.bernoulli(key), dm_pix.flip_left_right(image), image)


def cutout(key: Array, image: Array, spec: DataSpec) -> Array:
    """Sets a square to 0, the mean. Its side is half of the image's shorter side.

    The square's centre is uniform over the pixels. Parts of the square may be outside the image.

    Args:
      key: A JAX random key.
      image: `[H, W, C]`, normalised.
      spec: Not used.

    Returns:
      `[H, W, C]`.

    Source: DeVries, Taylor 2017 (arXiv 1708.04552).
    """
    height, width, _ = image.shape
    side = min(height, width) // 2
    keys = jax.random.split(key)
    rows, columns = (
        (index >= start) & (index < start + side)
        for index, start in (
            (jnp.arange(size), jax.random.randint(draw, (), 0, size) - side // 2)
            for draw, size in zip(keys, (height, width), strict=True)
        )
    )
    return jnp.where((rows[:, None] & columns)[..., None], 0.0, image)


CROP = Augmentation(crop)
FLIP = Augmentation(flip)
CUTOUT = Augmentation(cutout)
