"""Crop, flip and cut-out of one image: values move or go, and none is computed."""

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array


def crop(key: Array, image: Array, fill: Array) -> Array:
    """A random window of the size of `image` `[H, W, C]`, which is padded by an eighth each side with `fill` `[C]`."""
    height, width, channels = image.shape
    top, left = height // 8, width // 8
    padded = jnp.broadcast_to(fill, (height + 2 * top, width + 2 * left, channels))
    padded = padded.at[top : top + height, left : left + width].set(image)
    return dm_pix.random_crop(key, padded, image.shape)


def flip(key: Array, image: Array) -> Array:
    """`image` `[H, W, C]`, mirrored left to right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), dm_pix.flip_left_right(image), image)


def cutout(key: Array, image: Array) -> Array:
    """`image` `[H, W, C]` with a square of half its shorter side set to zero, cut off where it leaves the image.

    The square's centre is uniform over the pixels.
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
