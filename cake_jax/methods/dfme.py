"""Data-free model extraction: a generator makes inputs on which guide student and teacher disagree.

The teacher gives scores. The gradient of the disagreement with respect to the generated inputs is estimated by forward
differences. Source: Truong, Maini, Walls, Papernot, CVPR 2021 (arXiv 2011.14779). In the paper, the teacher labels new
inputs for every step of the student. Here the teacher labels each sample once, and the student trains on the pool.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import checks, losses
from cake_jax.methods import adversarial
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.methods.shared import generator_training
from cake_jax.methods.shared.generator_training import GeneratorState, GuidedSettings
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Queryable


@dataclasses.dataclass(frozen=True)
class DFMESettings(GuidedSettings):
    """Settings of `dfme`.

    Attributes:
      num_directions: q, the number of random directions from which the gradient of an input is estimated.
      epsilon: L2 length of a finite difference, in normalised units.
      balance: Weight of the information entropy loss, as in `adversarial`.
    """

    num_directions: int = 1
    epsilon: float = 1e-3
    balance: float = 100.0


def prepare(settings: DFMESettings, spec: DataSpec) -> DFMESettings:
    """Checks the settings, and sets the schedule of the step size to constant.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    for name in ("num_directions", "epsilon"):
        checks.above_zero(f"methods.dfme.{name}", getattr(settings, name))
    checks.not_negative("methods.dfme.balance", settings.balance)
    return generator_training.checked(settings, "dfme", spec)


def make_round(
    key: Array, state: GeneratorState, teacher: Queryable, student: Teacher | None, settings: DFMESettings, batch: int
) -> Round:
    """Trains the generator with new latents in each step, then draws the samples."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    assert student is not None
    student, disagreement = jax.device_get(student), []
    for step_key in jax.random.split(train_key, settings.num_steps):
        probes, directions = _probes(step_key, state, settings, student.spec)
        answers = teacher.predict(probes.reshape(-1, *student.spec.shape)).reshape(*probes.shape[:2], -1)
        state, value = _step(step_key, state, student, probes, directions, answers, settings)
        disagreement.append(value)
    x = generator_training.draw(sample_key, settings, student.spec, state.params)
    samples = generator_training.answered(teacher, x, settings, batch)
    info = adversarial.DisagreementInfo(float(disagreement[0]), float(disagreement[-1]))
    return Round(state, samples, info)


def queries(settings: DFMESettings, access: str, batch: int) -> Queries:
    """For each step, a sample and its finite differences. At the end, one forward query for each sample."""
    return Queries(forward=settings.batch_size * (settings.num_steps * (1 + settings.num_directions) + 1))


def difference(student_logits: Array, teacher_logits: Array) -> Array:
    """The L1 distance of centred logits: `[..., K]` to `[...]`.

    Log-probabilities equal logits up to a constant. So the teacher may give scores or logits (arXiv 2011.14779).
    """
    student, teacher = (logits - logits.mean(-1, keepdims=True) for logits in (student_logits, teacher_logits))
    return jnp.abs(student - teacher).sum(axis=-1)


def forward_differences(values: Array, directions: Array, epsilon: float) -> Array:
    """Estimates the gradient of a scalar function h of x.

    Args:
      values: Values of h at x and at `x + epsilon u_i`, `[1 + q, N]`.
      directions: Directions u_i, `[q, N, *shape]`.
      epsilon: L2 length of a finite difference.

    Returns:
      `(d / q) sum_i u_i (h(x + epsilon u_i) - h(x)) / epsilon`, `[N, *shape]`. d is the number of values in one input.

    Source: arXiv 2011.14779, the forward differences method.
    """
    slopes = (values[1:] - values[0]) / epsilon
    size = np.prod(directions.shape[2:])
    return size * jnp.einsum("mn,mn...->n...", slopes, directions) / len(directions)


@functools.partial(jax.jit, static_argnames=("settings", "spec"))
def _probes(key: Array, state: GeneratorState, settings: DFMESettings, spec: DataSpec) -> tuple[Array, Array]:
    """Returns the queries x and `x + epsilon u_i` of a step, `[1 + q, N, *shape]`, and the directions u_i."""
    latent_key, direction_key = jax.random.split(key)
    x = generator_training.draw(latent_key, settings, spec, state.params)
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
    """Returns the generator after a step up the estimated gradient, and the mean disagreement before the step."""
    latent_key, _ = jax.random.split(key)
    disagreement = difference(jax.vmap(student)(probes), answers)
    # The entropy depends on all samples at once. To first order it is a sum over the samples.
    shares = jax.nn.softmax(answers)
    slope = jax.grad(losses.negative_entropy)(shares[0].mean(axis=0))
    values = disagreement - settings.balance * shares @ slope
    upward = forward_differences(values, directions, settings.epsilon) / settings.batch_size

    def images(params: Any) -> Array:
        return generator_training.draw(latent_key, settings, student.spec, params)

    _, pull_back = jax.vjp(images, state.params)
    (gradient,) = pull_back(-upward)
    return generator_training.updated(state, gradient, settings), disagreement[0].mean()


DFME = Method(
    DFMESettings,
    make_round,
    queries,
    prepare,
    adversarial.init,
    access="scores",
    sequential=True,
    guide=lambda settings: settings.student,
)
