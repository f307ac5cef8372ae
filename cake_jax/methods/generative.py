"""A generator of given classes, trained against the teacher: what CAKE's samples are to a network that makes them all.

One latent with G different labels makes a set of G samples; the loss is CAKE's. The generative method of CAKE's Fig. 1
(arXiv 2306.02090), which contrast and repulsion are tried on.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import synthesis
from cake_jax.energy import energy
from cake_jax.methods import generators
from cake_jax.methods.generators import GeneratorSettings, GeneratorState
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.models.generator import generate
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, DataSpec, Examples

# Steps of a generator of vectors, as the toy experiment of the reference takes, and of images.
_STEPS_OF_VECTORS, _STEPS_OF_IMAGES = 15_000, 500


@dataclasses.dataclass(frozen=True)
class GenerativeSettings(GeneratorSettings):
    """Settings of the conditional generator; `num_steps` is what it takes in all, 0 chooses by the kind of input.

    Attributes:
      contrast: Whether the loss has CAKE's contrastive term, as `weights.contr` weighs it.
      repel: Weight of `repulsion`.
    """

    contrast: bool = True
    repel: float = 30.0


class GenerativeState(NamedTuple):
    """The generator's parameters, before training those that it starts from."""

    params: Any


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> GenerativeSettings:
    """The common settings and those of `config.methods.generative`.

    Raises:
      CakeError: They do not fit `spec`.
    """
    num_steps = own["num_steps"] or (_STEPS_OF_IMAGES if spec.is_image else _STEPS_OF_VECTORS)
    own = {**own, "num_steps": num_steps, "start": "normal"}
    settings = generators.settings_of(GenerativeSettings, "generative", common, own, spec)
    generators.above_zero(settings, "generative", "repel", or_zero=True)
    if settings.couples_sets:
        raise CakeError("synthesis.weights.entropy: generative takes neither it nor contrastive = 'snn'; set it to 0")
    if not settings.contrast:
        settings = dataclasses.replace(settings, weights=dataclasses.replace(settings.weights, contr=0.0))
    return settings


def init(key: Array, spec: DataSpec, settings: GenerativeSettings, data: Examples | None) -> GenerativeState:
    """The untrained generator."""
    return GenerativeState(generators.start(key, settings, spec, extra=spec.num_classes).params)


def next(
    key: Array,
    state: GenerativeState,
    teacher: Teacher,
    student: Teacher | None,
    settings: GenerativeSettings,
    batch: int,
) -> Round:
    """Samples of the generator, which is trained in round 0."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    asked = 0
    if batch == 0:
        state, asked = fit(train_key, state, teacher, settings), settings.num_steps * settings.batch_size
    x, target = make_sets(sample_key, state.params, settings, teacher.spec)
    x = x.reshape(-1, *teacher.spec.shape)
    samples = generators.answered(teacher, x, settings, batch, target.ravel())
    return Round(state, samples, synthesis.diagnose(samples, settings), Queries(samples.num_samples, asked))


@functools.partial(jax.jit, static_argnames=("settings", "spec"))
def make_sets(key: Array, params: Any, settings: GenerativeSettings, spec: DataSpec) -> tuple[Array, Array]:
    """Sets `[S, G, *shape]` of new latents z ~ U(-1, 1), one a set, and their target classes `[S, G]`."""
    latent_key, target_key = jax.random.split(key)
    z = jax.random.uniform(latent_key, (settings.num_sets, settings.latent_size), minval=-1.0)
    target_keys = jax.random.split(target_key, settings.num_sets)
    target = jax.vmap(lambda k: settings.targets(k, spec.num_classes, settings.num_groups))(target_keys)
    labels = jax.nn.one_hot(target, spec.num_classes)
    latents = jnp.concatenate([jnp.broadcast_to(z[:, None], (*target.shape, z.shape[-1])), labels], axis=-1)
    x = generate(generators.module_of(settings, spec), params, latents.reshape(settings.batch_size, -1))
    return x.reshape(*target.shape, *spec.shape), target


def repulsion(x: Array) -> Array:
    """How close the samples of different sets are to each other.

    Args:
      x: `[S, G, *shape]`, S at least 2, with d values each.

    Returns:
      The mean of `exp(-|x_i - x_j|^2 / 2 d)` over all pairs of samples of different sets, a scalar from 0 to 1.
    """
    sets, groups = x.shape[:2]
    flat = x.reshape(sets * groups, -1)
    square = jnp.square(flat).sum(axis=-1)
    distance = jnp.maximum(square[:, None] + square - 2 * flat @ flat.T, 0.0)
    near = jnp.exp(-distance / (2 * flat.shape[1])).reshape(sets, groups, sets, groups).sum(axis=(1, 3))
    return (near.sum() - jnp.trace(near)) / (sets * (sets - 1) * groups**2)


@functools.partial(jax.jit, static_argnames="settings")
def fit(key: Array, state: GenerativeState, teacher: Teacher, settings: GenerativeSettings) -> GenerativeState:
    """All steps of the generator, each on new sets."""
    everything = jnp.ones(settings.num_sets, bool)

    def objective(params: Any, key: Array) -> Array:
        x, target = make_sets(key, params, settings, teacher.spec)
        loss, _ = energy(x, teacher, target, everything, settings)
        return loss + settings.repel * repulsion(x) if settings.repel else loss

    def step(state: GeneratorState, key: Array) -> tuple[GeneratorState, None]:
        return generators.updated(state, jax.grad(objective)(state.params, key), settings), None

    first = GeneratorState(state.params, generators.adam(settings).init(state.params))
    trained, _ = lax.scan(step, first, jax.random.split(key, settings.num_steps))
    return GenerativeState(trained.params)


METHOD = Method(
    settings,
    next,
    init,
    defaults={
        **generators.DEFAULTS,
        "num_steps": 0,
        "latent_size": 5,
        "beta1": 0.9,
        "contrast": True,
        "repel": 30.0,
    },
    sequential=True,
)
