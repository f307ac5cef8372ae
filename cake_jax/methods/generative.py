"""A class-conditional generator trained with CAKE's loss.

One latent and G different target classes make a set of G samples. This is the generative method of CAKE's Fig. 1
(arXiv 2306.02090). The contrastive term and the repulsion of sets can be switched off.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import checks
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.methods.shared import generator_training
from cake_jax.methods.shared.generator_training import GeneratorSettings, GeneratorState
from cake_jax.models.generators import generate
from cake_jax.synthesis import diagnose
from cake_jax.synthesis.objective import objective as cake_objective
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, DataSpec, Examples

# Numbers of steps for vectors, as in the CAKE reference's toy experiment, and for images.
_STEPS_OF_VECTORS, _STEPS_OF_IMAGES = 15_000, 500


@dataclasses.dataclass(frozen=True)
class GenerativeSettings(GeneratorSettings):
    """Settings of `generative`.

    Attributes:
      num_steps: Number of the generator's steps in the whole synthesis. 0 takes 15,000 for vectors, 500 for images.
      latent_size: Width of the latents.
      beta1: Decay of Adam's first moment.
      contrast: Whether the loss has CAKE's contrastive term. Its weight is `weights.contr`.
      repel: Weight of the loss term `repulsion`.
    """

    num_steps: int = 0
    latent_size: int = 5
    beta1: float = 0.9
    contrast: bool = True
    repel: float = 30.0

    @property
    def total_steps(self) -> int:
        """Number of training steps in all rounds: those of round 0."""
        return self.num_steps


class GenerativeState(NamedTuple):
    """The generator's parameters. Before round 0 they are untrained."""

    params: Any


def prepare(settings: GenerativeSettings, spec: DataSpec) -> GenerativeSettings:
    """Returns the checked settings with the number of steps filled in.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    checks.not_negative("methods.generative.repel", settings.repel)
    num_steps = settings.num_steps or (_STEPS_OF_IMAGES if spec.is_image else _STEPS_OF_VECTORS)
    settings = dataclasses.replace(settings, num_steps=num_steps, start="normal")
    if not settings.contrast:
        settings = dataclasses.replace(settings, weights=dataclasses.replace(settings.weights, contr=0.0))
    settings = generator_training.checked(settings, "generative", spec)
    if settings.couples_sets:
        raise CakeError(
            "synthesis.weights.entropy: generative takes neither this term nor contrastive = 'snn'; set 0 and 'mse'"
        )
    return settings


def init(key: Array, spec: DataSpec, settings: GenerativeSettings, data: Examples | None) -> GenerativeState:
    """Returns an untrained generator."""
    return GenerativeState(generator_training.start(key, settings, spec, extra=spec.num_classes).params)


def make_round(
    key: Array,
    state: GenerativeState,
    teacher: Teacher,
    student: Teacher | None,
    settings: GenerativeSettings,
    batch: int,
) -> Round:
    """Draws samples from the generator. Round 0 first trains the generator."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    if batch == 0:
        state = fit(train_key, state, teacher, settings)
    x, target = make_sets(sample_key, state.params, settings, teacher.spec)
    x = x.reshape(-1, *teacher.spec.shape)
    samples = generator_training.answered(teacher, x, settings, batch, target.ravel())
    return Round(state, samples, diagnose(samples, settings))


def queries(settings: GenerativeSettings, access: str, batch: int) -> Queries:
    """A forward query for each sample. In round 0, also a gradient query for each sample of each training step."""
    steps = settings.num_steps if batch == 0 else 0
    return Queries(forward=settings.batch_size, gradient=settings.batch_size * steps)


@functools.partial(jax.jit, static_argnames=("settings", "spec"))
def make_sets(key: Array, params: Any, settings: GenerativeSettings, spec: DataSpec) -> tuple[Array, Array]:
    """Generates sets `[S, G, *shape]` and their target classes `[S, G]`. Each set has one new latent z ~ U(-1, 1)."""
    latent_key, target_key = jax.random.split(key)
    z = jax.random.uniform(latent_key, (settings.num_sets, settings.latent_size), minval=-1.0)
    target_keys = jax.random.split(target_key, settings.num_sets)
    target = jax.vmap(lambda k: settings.draw_targets(k, spec.num_classes, settings.num_groups))(target_keys)
    labels = jax.nn.one_hot(target, spec.num_classes)
    latents = jnp.concatenate([jnp.broadcast_to(z[:, None], (*target.shape, z.shape[-1])), labels], axis=-1)
    x = generate(generator_training.module_of(settings, spec), params, latents.reshape(settings.batch_size, -1))
    return x.reshape(*target.shape, *spec.shape), target


def repulsion(x: Array) -> Array:
    """Measures how close samples of different sets are.

    Args:
      x: At least two sets, `[S, G, *shape]`.

    Returns:
      The mean of `exp(-|x_i - x_j|^2 / (2 d))` over all pairs of samples of different sets. It is a scalar from 0 to 1.
      d is the number of values in one sample.
    """
    sets, groups = x.shape[:2]
    flat = x.reshape(sets * groups, -1)
    square = jnp.square(flat).sum(axis=-1)
    distance = jnp.maximum(square[:, None] + square - 2 * flat @ flat.T, 0.0)
    near = jnp.exp(-distance / (2 * flat.shape[1])).reshape(sets, groups, sets, groups).sum(axis=(1, 3))
    return (near.sum() - jnp.trace(near)) / (sets * (sets - 1) * groups**2)


@functools.partial(jax.jit, static_argnames="settings")
def fit(key: Array, state: GenerativeState, teacher: Teacher, settings: GenerativeSettings) -> GenerativeState:
    """Trains the generator with new sets in each step."""
    everything = jnp.ones(settings.num_sets, bool)

    def objective(params: Any, key: Array) -> Array:
        x, target = make_sets(key, params, settings, teacher.spec)
        loss, _ = cake_objective(x, teacher, target, everything, settings)
        return loss + settings.repel * repulsion(x) if settings.repel else loss

    def step(state: GeneratorState, key: Array) -> tuple[GeneratorState, None]:
        return generator_training.updated(state, jax.grad(objective)(state.params, key), settings), None

    first = GeneratorState(state.params, generator_training.adam(settings).init(state.params))
    trained, _ = lax.scan(step, first, jax.random.split(key, settings.num_steps))
    return GenerativeState(trained.params)


GENERATIVE = Method(GenerativeSettings, make_round, queries, prepare, init, sequential=True)
