"""IDEAL: a teacher that only answers, asked once for each image that a new generator makes for the student.

Source: Zhang, Chen, Lyu, ICLR 2023 (arXiv 2205.11158), its Algorithm 1 and released code. That code asks the teacher
again for the whole augmented pool in every epoch; here a label is asked for once and kept.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import losses
from cake_jax.augment import augment
from cake_jax.methods import generators
from cake_jax.methods.generators import GeneratorSettings
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.models.generator import generate
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher, answers
from cake_jax.types import CakeError, DataSpec


@dataclasses.dataclass(frozen=True)
class IdealSettings(GeneratorSettings):
    """Settings of IDEAL.

    Attributes:
      evenness: Weight of the mean of p ln p over samples and classes, p the student's softmax.
      smoothness: Weight of the images' `losses.total_variation`; not in the paper.
      hard_labels: Whether only the teacher's decision is kept of its answer.
    """

    evenness: float = 5.0
    smoothness: float = 0.0
    hard_labels: bool = False


class IdealInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      generator_loss: The lowest loss of the generator's steps, that of the samples.
      intended: Share of the samples that the student, before it trains on them, puts in their target class.
      target_accuracy: Share of them that the teacher puts there.
    """

    generator_loss: float
    intended: float
    target_accuracy: float


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> IdealSettings:
    """The common settings and those of `config.methods.ideal`.

    Raises:
      CakeError: They do not fit `spec`.
    """
    settings = generators.settings_of(IdealSettings, "ideal", common, own, spec)
    generators.above_zero(settings, "ideal", "evenness", "smoothness", or_zero=True)
    if settings.smoothness and not spec.is_image:
        raise CakeError("methods.ideal.smoothness: it is of images; set it to 0")
    return settings


def next(
    key: Array, state: tuple, teacher: Queryable, student: Teacher | None, settings: IdealSettings, batch: int
) -> Round:
    """The images of a generator that starts anew; the teacher is asked for their labels alone."""
    assert student is not None
    x, target, loss, intended = imagine(jax.random.fold_in(key, batch), jax.device_get(student), settings)
    samples = generators.answered(teacher, x, settings, batch, target)
    if settings.hard_labels:
        decisions = samples.logits.argmax(-1)
        samples = samples._replace(logits=answers.to_logits(decisions, "labels", samples.logits.shape[-1]))
    info = IdealInfo(float(loss), float(intended), float((samples.logits.argmax(-1) == samples.target).mean()))
    return Round(state, samples, info, Queries(forward=len(x)))


@functools.partial(jax.jit, static_argnames="settings")
def imagine(key: Array, student: Teacher, settings: IdealSettings) -> tuple[Array, Array, Array, Array]:
    """Trains a new generator to make what the student, in evaluation mode, takes for given classes.

    Args:
      key: Of the round.
      student: The student.
      settings: The settings.

    Returns:
      Of the step of the lowest loss (arXiv 2205.11158, Algorithm 1): images `[N, *shape]`, their target classes `[N]`,
      in turn, the loss, and the share of images that the student puts in their target class.
    """
    spec = student.spec
    start_key, latent_key, augment_key = jax.random.split(key, 3)
    module, first = generators.module_of(settings, spec), generators.start(start_key, settings, spec)
    z = jax.random.normal(latent_key, (settings.batch_size, settings.latent_size))
    target = jnp.arange(settings.batch_size) % spec.num_classes

    def objective(params: Any, keys: Array) -> tuple[Array, tuple[Array, Array]]:
        x = generate(module, params, z)
        logits = student(augment(keys, x, settings.student.augment, spec))
        log_p = jax.nn.log_softmax(logits)
        loss = losses.cross_entropy(logits, target).mean() + settings.evenness * (jnp.exp(log_p) * log_p).mean()
        if settings.smoothness:
            loss += settings.smoothness * losses.total_variation(x).mean()
        return loss, (x, (logits.argmax(-1) == target).mean())

    def step(carry: tuple, draw: Array) -> tuple[tuple, None]:
        state, best = carry
        keys = jax.random.split(draw, settings.batch_size)
        (loss, (x, intended)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params, keys)
        better = loss < best[1]
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (x, loss, intended), best)
        return (generators.updated(state, gradient, settings), best), None

    worst = (jnp.zeros((settings.batch_size, *spec.shape)), jnp.array(jnp.inf), jnp.zeros(()))
    draws = jax.random.split(augment_key, settings.num_steps)
    (_, (x, loss, intended)), _ = lax.scan(step, (first, worst), draws)
    return x, target, loss, intended


METHOD = Method(
    settings,
    next,
    defaults={
        **generators.DEFAULTS,
        "evenness": 5.0,
        "smoothness": 0.0,
        "hard_labels": False,
        "student": dict(generators.STUDENT),
    },
    needs="labels",
    sequential=True,
    training=lambda settings: settings.student,
)
