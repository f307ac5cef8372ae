"""Draws the start samples of a mini-batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import random_keys
from cake_jax.synthesis.objective import set_logits
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec


def draw(key: Array, sets: Array, settings: SynthesisSettings, spec: DataSpec) -> tuple[Array, Array, Array]:
    """Draws the start samples and target classes of c sets. Each set has its own key.

    Args:
      key: The key of the synthesis.
      sets: Numbers of the sets in the whole synthesis, `[c]` int.
      settings: The settings. This function makes no use of `candidates`.
      spec: Specification of the inputs.

    Returns:
      Start samples `[c, G, *shape]`, target classes `[c, G]`, and a key for each set's Langevin noise, `[c]`.
    """
    start_keys, target_keys, noise_keys = _keys(key, sets)
    target = jax.vmap(lambda k: settings.draw_targets(k, spec.num_classes, settings.num_groups))(target_keys)
    return _starts(start_keys, settings, spec), target, noise_keys


draw_jit = jax.jit(draw, static_argnames=("settings", "spec"))


def draw_candidates(
    key: Array, sets: Array, settings: SynthesisSettings, teacher: Teacher
) -> tuple[Array, Array, Array]:
    """Draws as `draw` does, and then `candidates - 1` further starts for each sample, of which the teacher keeps one.

    A sample's start is the first one whose argmax is the sample's target class. If there is none, it is the start to
    which the teacher gives the highest probability of that class. So all classes are about equally frequent among the
    starts, however rarely the teacher sees one of them.

    Args:
      key: The key of the synthesis.
      sets: Numbers of the sets in the whole synthesis, `[c]` int.
      settings: The settings.
      teacher: The teacher. It is asked for each candidate, unless there is only one.

    Returns:
      As `draw`.
    """
    x, target, noise_keys = draw(key, sets, settings, teacher.spec)
    if settings.candidates == 1:
        return x, target, noise_keys
    start_keys, _, _ = _keys(key, sets)

    def rank(x: Array) -> Array:
        """1 if the argmax is the target class, else the probability of that class, `[c, G]`."""
        logits = set_logits(teacher, x)
        probability = jnp.take_along_axis(jax.nn.softmax(logits), target[..., None], axis=-1)[..., 0]
        return jnp.where(logits.argmax(axis=-1) == target, 1.0, probability)

    def keep_better(kept: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        x, best = kept
        other = _starts(jax.vmap(lambda k: jax.random.fold_in(k, number))(start_keys), settings, teacher.spec)
        other_rank = rank(other)
        better = other_rank > best
        x = jnp.where(better.reshape(*better.shape, *[1] * (x.ndim - 2)), other, x)
        return (x, jnp.maximum(best, other_rank)), None

    (x, _), _ = lax.scan(keep_better, (x, rank(x)), jnp.arange(1, settings.candidates))
    return x, target, noise_keys


def batch_sets(settings: SynthesisSettings, batch: int) -> np.ndarray:
    """The numbers of the sets of mini-batch `batch`, `[S]`."""
    return batch * settings.num_sets + np.arange(settings.num_sets)


def draw_batch(key: Array, settings: SynthesisSettings, spec: DataSpec, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws start samples `[N, *shape]` and target classes `[N]` of mini-batch `batch`, on the host, set by set."""
    x, target, _ = draw_jit(key, batch_sets(settings, batch), settings, spec)
    return np.asarray(x).reshape(-1, *spec.shape), np.asarray(target).reshape(-1)


def _keys(key: Array, sets: Array) -> Array:
    """The keys of each set's starts, target classes and Langevin noise, `[3, c]`."""
    set_keys = jax.vmap(functools.partial(random_keys.set_key, key))(sets)
    return jax.vmap(functools.partial(jax.random.split, num=3))(set_keys).T


def _starts(keys: Array, settings: SynthesisSettings, spec: DataSpec) -> Array:
    """Start samples `[c, G, *shape]` of keys `[c]`."""
    return jax.vmap(lambda k: settings.draw_start(k, settings.num_groups, spec))(keys)
