"""Where samples start, p(x), and which classes they aim at, p(y)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.types import DataSpec

Start = Callable[[Array, int, DataSpec], Array]


def normal_start(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """The default p(x): independent standard normal values, `[G, *spec.shape]`."""
    return jax.random.normal(key, (num_groups, *spec.shape))


def smooth_start(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Images of Gaussian noise at four scales, coarse ones a little stronger, as natural images have it.

    A data prior in the choice of p(x) rather than in the loss: teachers of images answer such inputs with far more
    varied logits than independent pixels.

    Args:
      key: A key.
      num_groups: G.
      spec: The input domain, of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32, mean 0, variance about 1.
    """
    amplitudes = [0.5 * 2 ** (octave / 4) for octave in range(4)]
    return _octaves(key, amplitudes, (num_groups, *spec.shape))


def contrasted_start(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Smooth images of strong contrast, clipped to the valid pixel range: many pixels are black or white, as in scans.

    Args:
      key: A key.
      num_groups: G.
      spec: The input domain, of images `[H, W, C]`.

    Returns:
      `[G, H, W, C]` float32.
    """
    x = _octaves(key, [0.75, 1.5, 0.75], (num_groups, *spec.shape))
    low, high = spec.bounds
    return jnp.clip(x, low, high)


def _octaves(key: Array, amplitudes: Sequence[float], shape: tuple[int, ...]) -> Array:
    """Sums Gaussian noise over the scales 1, 2, 4 ... pixels, one for each amplitude: `[G, H, W, C]`."""
    groups, height, width, channels = shape
    x = jnp.zeros(shape)
    for octave, (amplitude, octave_key) in enumerate(
        zip(amplitudes, jax.random.split(key, len(amplitudes)), strict=True)
    ):
        coarse = (groups, -(-height // 2**octave), -(-width // 2**octave), channels)
        x += amplitude * jax.image.resize(jax.random.normal(octave_key, coarse), shape, "cubic")
    return x


IMAGE_STARTS: dict[str, Start] = {"smooth": smooth_start, "contrasted": contrasted_start}
STARTS: dict[str, Start] = {"normal": normal_start, **IMAGE_STARTS}


def distinct_targets(key: Array, num_classes: int, num_groups: int) -> Array:
    """The default p(y): `num_groups` different classes in random order, `[G]` int32."""
    return jax.random.permutation(key, num_classes)[:num_groups].astype(jnp.int32)
