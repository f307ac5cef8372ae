"""A generator that learns, in the same steps as a student, to make inputs on which student and teacher disagree.

Source: DFAD, Fang et al. 2019 (arXiv 1912.11006): generator and student take steps in turn, on the L1 distance of their
logits. The averaged generator replays what earlier generators made.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from cake_jax import parallel
from cake_jax.losses import logit_distance
from cake_jax.models.generators import generate, generator
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec

# Width of the latents.
LATENT_SIZE = 256
# Share of the averaged weights that stays in a step of the generator.
_AVERAGE = 0.95


class AdversaryState(NamedTuple):
    """A generator in training.

    Attributes:
      params: Its parameters.
      averaged: A running average of its parameters.
      opt_state: State of Adam.
    """

    params: Any
    averaged: Any
    opt_state: optax.OptState


def init(key: Array, spec: DataSpec, learning_rate: float) -> AdversaryState:
    """An untrained generator of inputs of `spec`."""
    params = jax.jit(module_of(spec).init)(key, jnp.zeros((2, LATENT_SIZE)))["params"]
    return AdversaryState(params, params, _adam(learning_rate).init(params))


def draw(state: AdversaryState, keys: Array, spec: DataSpec) -> Array:
    """Makes an input for each key, `[n, *shape]`. The averaged generator makes the second half."""
    latents, half = _latents(keys), len(keys) // 2
    parts = [(state.params, latents[:half]), (state.averaged, latents[half:])]
    return jnp.concatenate([generate(module_of(spec), params, z) for params, z in parts if len(z)])


def learn(state: AdversaryState, keys: Array, student: Any, teacher: Teacher, learning_rate: float) -> AdversaryState:
    """The generator after a step up the distance of the logits. All devices take the same step.

    Args:
      state: The generator.
      keys: The keys of this device's latents, `[n]`.
      student: The student in evaluation mode, `x [n, *shape] -> logits [n, K]`.
      teacher: The teacher.
      learning_rate: Learning rate of Adam.
    """
    latents = _latents(keys)

    def agreement(params: Any) -> Array:
        x = generate(module_of(teacher.spec), params, latents)
        return -logit_distance(student(x).astype(jnp.float32), teacher(x), power=1).mean()

    gradient = parallel.mean(jax.grad(agreement)(state.params))
    updates, opt_state = _adam(learning_rate).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return AdversaryState(params, optax.incremental_update(params, state.averaged, 1 - _AVERAGE), opt_state)


@functools.cache
def module_of(spec: DataSpec) -> nn.Module:
    """The generator of inputs of `spec`, with the mean and standard deviation of its pixels."""
    return generator(spec, moments=True)


def _adam(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate, b1=0.5)


def _latents(keys: Array) -> Array:
    return jax.vmap(lambda key: jax.random.normal(key, (LATENT_SIZE,)))(keys)
