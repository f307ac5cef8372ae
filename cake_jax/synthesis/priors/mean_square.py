"""The mean square of images, the data prior L2 of DeepInversion."""

import jax.numpy as jnp
from jax import Array

from cake_jax.synthesis.priors.prior import Prior


def mean_square(x: Array) -> Array:
    """The mean square of images `[..., H, W, C]` in normalised units, `[...]`.

    Source: DeepInversion, Yin et al. 2020 (arXiv 1912.08795), whose image prior has the norm of all pixels.
    """
    return jnp.square(x).mean(axis=(-3, -2, -1))


MEAN_SQUARE = Prior(mean_square, needs_images=True)
