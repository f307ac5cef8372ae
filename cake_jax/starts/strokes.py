"""A start for images of shapes with sharp edges, such as strokes and blots."""

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.starts.start import Start, in_range
from cake_jax.types import DataSpec

# Range of the blur's standard deviation, in parts of the shorter side of the image.
_BLUR = (0.03, 0.2)
# Range of the threshold, in standard deviations of the blurred noise. Above 0, less than half of the image is filled.
_THRESHOLD = (-1.0, 1.5)
# Width of an edge, in standard deviations of the blurred noise.
_EDGE = 0.15


def strokes(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws blurred noise and cuts it at a threshold. The width of the blur and the threshold differ between images.

    Images of one channel are white shapes on black. With more channels, shapes and background have random colours.

    Args:
      key: A JAX random key.
      num_groups: G, the number of samples in a set.
      spec: Specification of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32, within the valid range. Without bounds, from -2 to 2.
    """
    height, width, channels = spec.shape
    noise_key, blur_key, threshold_key, colour_key = jax.random.split(key, 4)
    low, high = jnp.log(jnp.array(_BLUR) * min(height, width))
    sigma = jnp.exp(jax.random.uniform(blur_key, (num_groups,), minval=low, maxval=high))
    noise = jax.random.normal(noise_key, (num_groups, height, width))
    smooth = jnp.einsum("gij,gjk,glk->gil", _blur(sigma, height), noise, _blur(sigma, width))
    threshold = jax.random.uniform(threshold_key, (num_groups, 1, 1), minval=_THRESHOLD[0], maxval=_THRESHOLD[1])
    filled = jax.nn.sigmoid((smooth - threshold) / _EDGE)[..., None]
    colours = jnp.array([[0.0], [1.0]])
    if channels > 1:
        colours = jax.random.uniform(colour_key, (num_groups, 2, 1, 1, channels))
        colours = colours.swapaxes(0, 1)
    return in_range((1 - filled) * colours[0] + filled * colours[1], spec)


def _blur(sigma: Array, size: int) -> Array:
    """Matrices of Gaussian blurs along an axis, `[G, size, size]`. Blurred white noise has variance 1."""
    distance = jnp.subtract.outer(jnp.arange(size), jnp.arange(size))
    weights = jnp.exp(-0.5 * jnp.square(distance / sigma[:, None, None]))
    return weights / jnp.linalg.norm(weights, axis=-1, keepdims=True)


STROKES = Start(strokes, needs_images=True)
