"""A start for images of objects that hide each other: the dead-leaves model."""

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.starts.octaves import octaves
from cake_jax.starts.start import Start, in_range
from cake_jax.types import DataSpec

_LEAVES = 24
# Range of an image's smallest radius, and the largest radius of all, in parts of the shorter side of the image.
_SMALLEST, _LARGEST = (0.06, 0.35), 0.7
# Natural logarithm of the largest factor by which an ellipse is longer or shorter than a disc.
_STRETCH = 0.6
# Standard deviations of the change of brightness across an image, and of a leaf's texture. Pixels have the range 1.
_SHADING, _TEXTURE = 0.35, 0.12
# Standard deviations of the texture at scales of 1, 2 and 4 pixels, and the share of it that channels have apart.
_SCALES, _COLOURED = (0.5, 0.6, 0.7), 0.4


def leaves(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws ellipses of random place, size, shape and colour, with shading and texture. Earlier ones hide later ones.

    A last colour fills the rest. The number of ellipses falls with the cube of their size, so edges occur at many
    scales, as in natural images. Images differ in their smallest size and in how colourful they are.

    Args:
      key: A JAX random key.
      num_groups: G, the number of samples in a set.
      spec: Specification of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32, within the valid range. Without bounds, from -2 to 2.

    Source: Lee, Mumford, Huang 2001 (Occlusion Models for Natural Images, IJCV 41). Baradad et al. 2021
      (arXiv 2106.05963) train on such images, with and without texture.
    """
    height, width, channels = spec.shape
    shape_key, colour_key, texture_key = jax.random.split(key, 3)
    first = _first_leaf(shape_key, num_groups, height, width).reshape(num_groups, -1, 1)
    look = jnp.take_along_axis(_looks(colour_key, num_groups, channels), first, axis=1)
    look = look.reshape(num_groups, height, width, -1)
    colour, down, right, texture = jnp.split(look, (channels, channels + 1, channels + 2), axis=-1)
    rows, columns = (jnp.linspace(-0.5, 0.5, size) for size in (height, width))
    pixels = colour + down * rows[:, None, None] + right * columns[:, None]
    pixels += texture * _noise(texture_key, (num_groups, height, width, channels))
    return in_range(jnp.clip(pixels, 0.0, 1.0), spec)


def _first_leaf(key: Array, num_groups: int, height: int, width: int) -> Array:
    """The number of the first leaf that covers each pixel, `[G, H, W]`. If there is none, the number of leaves."""
    centre_key, smallest_key, size_key, stretch_key, angle_key = jax.random.split(key, 5)
    each, side = (num_groups, _LEAVES), min(height, width)
    centre = jax.random.uniform(centre_key, (*each, 2)) * jnp.array([height, width])
    low, high = jnp.log(jnp.array(_SMALLEST))
    smallest = jnp.exp(jax.random.uniform(smallest_key, (num_groups, 1), minval=low, maxval=high))
    # The inverse of the distribution function of a density that is proportional to 1 / r^3.
    part = jax.random.uniform(size_key, each)
    radius = side * (smallest**-2 * (1 - part) + _LARGEST**-2 * part) ** -0.5
    stretch = jnp.exp(jax.random.uniform(stretch_key, each, minval=-_STRETCH, maxval=_STRETCH))
    angle = jax.random.uniform(angle_key, each, maxval=jnp.pi)
    radius, stretch, angle = (value[:, None, None] for value in (radius, stretch, angle))
    rows = jnp.arange(height)[:, None, None] - centre[:, None, None, :, 0]
    columns = jnp.arange(width)[:, None] - centre[:, None, None, :, 1]
    along = (jnp.cos(angle) * rows + jnp.sin(angle) * columns) * stretch
    across = (jnp.cos(angle) * columns - jnp.sin(angle) * rows) / stretch
    covered = jnp.square(along) + jnp.square(across) < jnp.square(radius)
    # The last entry covers all pixels.
    return jnp.pad(covered, [(0, 0)] * 3 + [(0, 1)], constant_values=True).argmax(axis=-1)


def _looks(key: Array, num_groups: int, channels: int) -> Array:
    """For each leaf and the ground: colour, change of brightness downwards and to the right, strength of the texture.

    `[G, leaves + 1, C + 3]`.
    """
    grey_key, colour_key, share_key, shading_key, texture_key = jax.random.split(key, 5)
    each = (num_groups, _LEAVES + 1)
    share = jax.random.uniform(share_key, (num_groups, 1, 1))
    grey, colour = jax.random.uniform(grey_key, (*each, 1)), jax.random.uniform(colour_key, (*each, channels))
    shading = _SHADING * jax.random.normal(shading_key, (*each, 2))
    texture = _TEXTURE * jnp.abs(jax.random.normal(texture_key, (*each, 1)))
    return jnp.concatenate([(1 - share) * grey + share * colour, shading, texture], axis=-1)


def _noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Noise at several scales, most of which is the same in all channels, `[G, H, W, C]`."""
    common_key, own_key = jax.random.split(key)
    return octaves(common_key, _SCALES, (*shape[:3], 1)) + _COLOURED * octaves(own_key, _SCALES, shape)


LEAVES = Start(leaves, needs_images=True)
