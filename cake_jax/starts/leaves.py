"""A start for images of objects that hide each other: the dead-leaves model."""

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.starts.start import Start, in_range
from cake_jax.types import DataSpec

_LEAVES = 48
# Range of a leaf's radius, in parts of the shorter side of the image.
_RADIUS = (0.04, 0.5)


def leaves(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws discs of random place, size and colour. Earlier discs hide later ones, and a last colour fills the rest.

    The number of discs falls with the cube of their radius, so edges occur at all scales, as in natural images.

    Args:
      key: A JAX random key.
      num_groups: G, the number of samples in a set.
      spec: Specification of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32, within the valid range. Without bounds, from -2 to 2.

    Source: Lee, Mumford, Huang 2001 (Occlusion Models for Natural Images, IJCV 41). Baradad et al. 2021
      (arXiv 2106.05963) train on such images.
    """
    height, width, channels = spec.shape
    place_key, size_key, colour_key = jax.random.split(key, 3)
    centre = jax.random.uniform(place_key, (num_groups, _LEAVES, 2)) * jnp.array([height, width])
    # The inverse of the distribution function of a density that is proportional to 1 / r^3.
    low, high = (1 / (part * min(height, width)) ** 2 for part in _RADIUS)
    radius = jax.random.uniform(size_key, (num_groups, _LEAVES), minval=high, maxval=low) ** -0.5
    colours = jax.random.uniform(colour_key, (num_groups, _LEAVES + 1, channels))
    rows = jnp.arange(height)[:, None, None] - centre[:, None, None, :, 0]
    columns = jnp.arange(width)[:, None] - centre[:, None, None, :, 1]
    covered = jnp.square(rows) + jnp.square(columns) < jnp.square(radius)[:, None, None]
    # The first disc that covers a pixel. The last entry covers all pixels.
    first = jnp.pad(covered, [(0, 0)] * 3 + [(0, 1)], constant_values=True).argmax(axis=-1)
    pixels = jnp.take_along_axis(colours, first.reshape(num_groups, -1, 1), axis=1)
    return in_range(pixels.reshape(num_groups, height, width, channels), spec)


LEAVES = Start(leaves, needs_images=True)
