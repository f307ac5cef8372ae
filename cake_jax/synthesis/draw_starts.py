"""Draws the start samples of a mini-batch."""

import functools

import jax
import numpy as np
from jax import Array

from cake_jax import random_keys
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.types import DataSpec


def draw(key: Array, sets: Array, settings: SynthesisSettings, spec: DataSpec) -> tuple[Array, Array, Array]:
    """Draws the start samples and target classes of c sets. Each set has its own key.

    Args:
      key: The key of the synthesis.
      sets: Numbers of the sets in the whole synthesis, `[c]` int.
      settings: The settings.
      spec: Specification of the inputs.

    Returns:
      Start samples `[c, G, *shape]`, target classes `[c, G]`, and a key for each set's Langevin noise, `[c]`.
    """
    set_keys = jax.vmap(functools.partial(random_keys.set_key, key))(sets)
    start_keys, target_keys, noise_keys = jax.vmap(functools.partial(jax.random.split, num=3))(set_keys).T
    target = jax.vmap(lambda k: settings.draw_targets(k, spec.num_classes, settings.num_groups))(target_keys)
    x = jax.vmap(lambda k: settings.draw_start(k, settings.num_groups, spec))(start_keys)
    return x, target, noise_keys


draw_jit = jax.jit(draw, static_argnames=("settings", "spec"))


def batch_sets(settings: SynthesisSettings, batch: int) -> np.ndarray:
    """The numbers of the sets of mini-batch `batch`, `[S]`."""
    return batch * settings.num_sets + np.arange(settings.num_sets)


def draw_batch(key: Array, settings: SynthesisSettings, spec: DataSpec, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws start samples `[N, *shape]` and target classes `[N]` of mini-batch `batch`, on the host, set by set."""
    x, target, _ = draw_jit(key, batch_sets(settings, batch), settings, spec)
    return np.asarray(x).reshape(-1, *spec.shape), np.asarray(target).reshape(-1)
