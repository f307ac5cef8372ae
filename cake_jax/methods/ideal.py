"""IDEAL: in each round, a new generator makes images for the guide student, and the teacher labels the images.

Source: Zhang, Chen, Lyu, ICLR 2023 (arXiv 2205.11158), Algorithm 1 and the released code. In every epoch, that code
queries the teacher for the whole augmented pool. Here the teacher labels each image once.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import checks, losses
from cake_jax.augment import augment
from cake_jax.black_box.answer_kinds import to_logits
from cake_jax.methods.method import Method, Round
from cake_jax.methods.shared import generator_training
from cake_jax.methods.shared.generator_training import GuidedSettings
from cake_jax.models.generators import generate
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, DataSpec, Queryable


@dataclasses.dataclass(frozen=True)
class IdealSettings(GuidedSettings):
    """Settings of `ideal`.

    Attributes:
      evenness: Weight of the mean of p ln p over samples and classes. p is the guide student's softmax.
      smoothness: Weight of `losses.total_variation` of the images. The paper has no such term.
      hard_labels: Whether only the argmax of the teacher's answer is kept.
    """

    evenness: float = 5.0
    smoothness: float = 0.0
    hard_labels: bool = False


class IdealInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      generator_loss: Lowest loss of the generator's steps. The samples come from this step.
      intended: Share of the samples that the guide student assigns to their target class before training on them.
      target_accuracy: Share of the samples that the teacher assigns to their target class.
    """

    generator_loss: float
    intended: float
    target_accuracy: float


def prepare(settings: IdealSettings, spec: DataSpec) -> IdealSettings:
    """Checks the settings, and sets the schedule of the step size to constant.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    for name in ("evenness", "smoothness"):
        checks.not_negative(f"methods.ideal.{name}", getattr(settings, name))
    if settings.smoothness and not spec.is_image:
        raise CakeError("methods.ideal.smoothness: inputs are no images; set it to 0")
    return generator_training.checked(settings, "ideal", spec)


def make_round(
    key: Array, state: tuple, teacher: Queryable, student: Teacher | None, settings: IdealSettings, batch: int
) -> Round:
    """Makes images with a new generator, and lets the teacher label them."""
    assert student is not None
    x, target, loss, intended = make_images(jax.random.fold_in(key, batch), jax.device_get(student), settings)
    samples = generator_training.answered(teacher, x, settings, batch, target)
    if settings.hard_labels:
        labels = samples.logits.argmax(-1)
        samples = samples._replace(logits=to_logits(labels, "labels", samples.logits.shape[-1]))
    info = IdealInfo(float(loss), float(intended), float((samples.logits.argmax(-1) == samples.target).mean()))
    return Round(state, samples, info)


@functools.partial(jax.jit, static_argnames="settings")
def make_images(key: Array, student: Teacher, settings: IdealSettings) -> tuple[Array, Array, Array, Array]:
    """Trains a new generator to make images that the guide student assigns to given classes.

    Args:
      key: The round's key.
      student: The guide student, in evaluation mode.
      settings: Settings that `prepare` returns.

    Returns:
      Four results of the step with the lowest loss (arXiv 2205.11158, Algorithm 1): the images, `[N, *shape]`; their
      target classes, `[N]`, which are 0 to K - 1 in turn; the loss; and the share of the images that the student
      assigns to their target class.
    """
    spec = student.spec
    start_key, latent_key, augment_key = jax.random.split(key, 3)
    module, first = generator_training.module_of(settings, spec), generator_training.start(start_key, settings, spec)
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
        return (generator_training.updated(state, gradient, settings), best), None

    worst = (jnp.zeros((settings.batch_size, *spec.shape)), jnp.array(jnp.inf), jnp.zeros(()))
    draws = jax.random.split(augment_key, settings.num_steps)
    (_, (x, loss, intended)), _ = lax.scan(step, (first, worst), draws)
    return x, target, loss, intended


IDEAL = Method(
    IdealSettings,
    make_round,
    prepare=prepare,
    access="labels",
    sequential=True,
    guide=lambda settings: settings.student,
)
