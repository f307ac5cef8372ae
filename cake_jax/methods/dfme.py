"""Data-free model extraction: a generator seeks disagreement with a teacher that gives scores and no gradient.

The gradient of the disagreement with respect to the generator's images is estimated by forward differences. Source:
Truong, Maini, Walls, Papernot, CVPR 2021 (arXiv 2011.14779). Here the student trains on all samples
of all rounds, each of which is labelled once; the paper asks anew for every step of the student.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import losses
from cake_jax.evaluation import predict
from cake_jax.methods import adversarial, generators
from cake_jax.methods.generators import GeneratorSettings, GeneratorState
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher
from cake_jax.types import DataSpec


@dataclasses.dataclass(frozen=True)
class DFMESettings(GeneratorSettings):
    """Settings of data-free model extraction.

    Attributes:
      num_directions: m, random directions that an image is moved in to estimate its gradient.
      epsilon: How far, in normalised units, as the length of the whole image's change.
      balance: As that of `adversarial`.
    """

    num_directions: int = 1
    epsilon: float = 1e-3
    balance: float = 100.0


class DFMEInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      disagreement_start: L1 distance of the centred logits of student and teacher at the first step, mean of samples.
      disagreement: At the last step.
    """

    disagreement_start: float
    disagreement: float


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> DFMESettings:
    """The common settings and those of `config.methods.dfme`.

    Raises:
      CakeError: They do not fit `spec`.
    """
    settings = generators.settings_of(DFMESettings, "dfme", common, own, spec)
    generators.above_zero(settings, "dfme", "num_directions", "epsilon")
    generators.above_zero(settings, "dfme", "balance", or_zero=True)
    return settings


def next(
    key: Array, state: GeneratorState, teacher: Queryable, student: Teacher | None, settings: DFMESettings, batch: int
) -> Round:
    """Steps of the generator, each on new latents, then samples of it; the teacher only ever answers."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    assert student is not None
    student, disagreement = jax.device_get(student), []
    for step_key in jax.random.split(train_key, settings.num_steps):
        probes, directions = _probes(step_key, state, settings, student.spec)
        answers = predict(teacher, probes.reshape(-1, *student.spec.shape)).reshape(*probes.shape[:2], -1)
        state, value = _step(step_key, state, student, probes, directions, answers, settings)
        disagreement.append(value)
    x = generators.draw(sample_key, settings, student.spec, state.params)
    samples = generators.answered(teacher, x, settings, batch)
    asked = settings.num_steps * (1 + settings.num_directions)
    info = DFMEInfo(float(disagreement[0]), float(disagreement[-1]))
    return Round(state, samples, info, Queries(forward=samples.num_samples * (asked + 1)))


def difference(student_logits: Array, teacher_logits: Array) -> Array:
    """L1 distance of logits, each less its mean: `[..., K]` to `[...]`.

    Log-probabilities are logits up to a constant, so the teacher may give either (arXiv 2011.14779).
    """
    student, teacher = (logits - logits.mean(-1, keepdims=True) for logits in (student_logits, teacher_logits))
    return jnp.abs(student - teacher).sum(axis=-1)


def forward_differences(values: Array, directions: Array, epsilon: float) -> Array:
    """Estimates the gradient of a function of x.

    Args:
      values: Of the function at x, and at x moved by epsilon in each direction, `[1 + m, N]`.
      directions: Of unit length, `[m, N, *shape]`.
      epsilon: The move.

    Returns:
      `d / m sum_i (f(x + epsilon u_i) - f(x)) / epsilon u_i`, d the number of values of one x: `[N, *shape]`.

    Source: arXiv 2011.14779, the forward differences method.
    """
    slopes = (values[1:] - values[0]) / epsilon
    size = np.prod(directions.shape[2:])
    return size * jnp.einsum("mn,mn...->n...", slopes, directions) / len(directions)


@functools.partial(jax.jit, static_argnames=("settings", "spec"))
def _probes(key: Array, state: GeneratorState, settings: DFMESettings, spec: DataSpec) -> tuple[Array, Array]:
    """What the teacher is asked in a step, x and x moved in m directions `[1 + m, N, *shape]`, and the directions."""
    latent_key, direction_key = jax.random.split(key)
    x = generators.draw(latent_key, settings, spec, state.params)
    directions = jax.random.normal(direction_key, (settings.num_directions, *x.shape))
    axes = tuple(range(2, directions.ndim))
    directions /= jnp.sqrt(jnp.square(directions).sum(axes, keepdims=True))
    return jnp.concatenate([x[None], x + settings.epsilon * directions]), directions


@functools.partial(jax.jit, static_argnames="settings")
def _step(
    key: Array,
    state: GeneratorState,
    student: Teacher,
    probes: Array,
    directions: Array,
    answers: Array,
    settings: DFMESettings,
) -> tuple[GeneratorState, Array]:
    """A step of the generator up the estimated gradient, and the mean disagreement before it."""
    latent_key, _ = jax.random.split(key)
    disagreement = difference(jax.vmap(student)(probes), answers)
    # The balance is a function of all samples; to first order, of each alone.
    shares = jax.nn.softmax(answers)
    slope = jax.grad(losses.negative_entropy)(shares[0].mean(axis=0))
    values = disagreement - settings.balance * shares @ slope
    upward = forward_differences(values, directions, settings.epsilon) / settings.batch_size

    def images(params: Any) -> Array:
        return generators.draw(latent_key, settings, student.spec, params)

    _, pull_back = jax.vjp(images, state.params)
    (gradient,) = pull_back(-upward)
    return generators.updated(state, gradient, settings), disagreement[0].mean()


METHOD = Method(
    settings,
    next,
    adversarial.init,
    defaults={
        **generators.DEFAULTS,
        "num_directions": 1,
        "epsilon": 1e-3,
        "balance": 100.0,
        "student": dict(generators.STUDENT),
    },
    needs="scores",
    sequential=True,
    training=lambda settings: settings.student,
)
