"""Where samples start, p(x), and which classes they aim at, p(y)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Start = Callable[[Array, tuple[int, ...]], Array]


def normal_start(key: Array, shape: tuple[int, ...]) -> Array:
    """The default p(x): independent standard normal values of the given shape."""
    return jax.random.normal(key, shape)


def smooth_start(key: Array, shape: tuple[int, ...]) -> Array:
    """Images of Gaussian noise at four scales, coarse ones a little stronger, as natural images have it.

    A data prior in the choice of p(x) rather than in the loss: teachers of images answer such inputs with far more
    varied logits than independent pixels.

    Args:
      key: A key.
      shape: `(G, H, W, C)`.

    Returns:
      `[G, H, W, C]` float32, mean 0, variance about 1.
    """
    groups, height, width, channels = shape
    x = jnp.zeros(shape)
    for octave, octave_key in enumerate(jax.random.split(key, 4)):
        coarse = (groups, -(-height // 2**octave), -(-width // 2**octave), channels)
        noise = jax.random.normal(octave_key, coarse)
        x += 0.5 * 2 ** (octave / 4) * jax.image.resize(noise, shape, "cubic")
    return x


STARTS: dict[str, Start] = {"normal": normal_start, "smooth": smooth_start}


def distinct_targets(key: Array, num_classes: int, num_groups: int) -> Array:
    """The default p(y): `num_groups` different classes in random order, `[G]` int32."""
    return jax.random.permutation(key, num_classes)[:num_groups].astype(jnp.int32)
