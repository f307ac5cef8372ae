"""A start of independent normal values."""

import jax
from jax import Array

from cake_jax.starts.start import Start
from cake_jax.types import DataSpec


def normal(key: Array, num_groups: int, spec: DataSpec) -> Array:
    """Draws independent standard normal values, `[G, *spec.shape]` float32.

    Source: CAKE (arXiv 2306.02090), p(x) of Algorithm 1.
    """
    return jax.random.normal(key, (num_groups, *spec.shape))


NORMAL = Start(normal)
