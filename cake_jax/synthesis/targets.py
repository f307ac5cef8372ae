"""Distributions p(y) of target classes by name. A new distribution is one function and one line of `TARGETS`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# (key, K, G) -> the target classes of a set, [G] int32.
Targets = Callable[[Array, int, int], Array]


def distinct(key: Array, num_classes: int, num_groups: int) -> Array:
    """Draws G different classes in random order, `[G]` int32.

    Source: CAKE (arXiv 2306.02090), p(y) of Algorithm 1.
    """
    return jax.random.permutation(key, num_classes)[:num_groups].astype(jnp.int32)


TARGETS: dict[str, Targets] = {"distinct": distinct}
