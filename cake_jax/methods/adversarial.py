"""A generator seeks inputs on which student and teacher disagree, with gradients through both; the student learns them.

Source: Micaelli, Storkey, NeurIPS 2019 (ZSKT, arXiv 1905.09768), where the disagreement is KL(teacher || student);
Fang et al. 2019 (DFAD, arXiv 1912.11006), where it is the L1 distance of logits. Here the student trains on all samples
of all rounds rather than on the newest, and the attention maps of ZSKT are left out: they lie inside the teacher.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import losses
from cake_jax.methods import generators
from cake_jax.methods.generators import GeneratorSettings, GeneratorState
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, DataSpec, Examples

# Of student and teacher logits [N, K], a value a sample [N].
DISAGREEMENTS = {
    "kl": losses.kl_divergence,
    "l1": lambda student, teacher: jnp.abs(student - teacher).mean(axis=-1),
}


@dataclasses.dataclass(frozen=True)
class AdversarialSettings(GeneratorSettings):
    """Settings of the adversarial methods.

    Attributes:
      disagreement: `kl` or `l1`.
      balance: Weight of `losses.negative_entropy` of the teacher's mean softmax, which keeps all classes among the
        samples: the information entropy loss of DAFL (arXiv 1904.01186).
    """

    disagreement: str = "kl"
    balance: float = 100.0


class AdversarialInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      disagreement_start: Of student and teacher on the samples of the first step, mean.
      disagreement: On those of the last.
    """

    disagreement_start: float
    disagreement: float


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> AdversarialSettings:
    """The common settings and those of `config.methods.adversarial`.

    Raises:
      CakeError: They do not fit `spec`.
    """
    if own["disagreement"] not in DISAGREEMENTS:
        names = ", ".join(DISAGREEMENTS)
        raise CakeError(f"methods.adversarial.disagreement: '{own['disagreement']}' is not one of {names}")
    settings = generators.settings_of(AdversarialSettings, "adversarial", common, own, spec)
    generators.above_zero(settings, "adversarial", "balance", or_zero=True)
    return settings


def init(key: Array, spec: DataSpec, settings: GeneratorSettings, data: Examples | None) -> GeneratorState:
    """The generator that all rounds train."""
    return generators.start(key, settings, spec)


def next(
    key: Array,
    state: GeneratorState,
    teacher: Teacher,
    student: Teacher | None,
    settings: AdversarialSettings,
    batch: int,
) -> Round:
    """Steps of the generator, each on new latents, then samples of it."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    assert student is not None
    state, disagreement = contend(train_key, state, teacher, jax.device_get(student), settings)
    x = generators.draw(sample_key, settings, student.spec, state.params)
    samples = generators.answered(teacher, x, settings, batch)
    count = samples.num_samples
    info = AdversarialInfo(float(disagreement[0]), float(disagreement[-1]))
    return Round(state, samples, info, Queries(forward=count, gradient=count * settings.num_steps))


@functools.partial(jax.jit, static_argnames="settings")
def contend(
    key: Array, state: GeneratorState, teacher: Teacher, student: Teacher, settings: AdversarialSettings
) -> tuple[GeneratorState, Array]:
    """Trains the generator to make student and teacher disagree.

    Args:
      key: Of the latents.
      state: The generator.
      teacher: The teacher.
      student: The student.
      settings: The settings.

    Returns:
      The generator after `num_steps` steps, and the mean disagreement at each, before it is taken, `[num_steps]`.
    """
    spec, disagreement = student.spec, DISAGREEMENTS[settings.disagreement]

    def step(state: GeneratorState, key: Array) -> tuple[GeneratorState, Array]:
        def objective(params: Any) -> tuple[Array, Array]:
            x = generators.draw(key, settings, spec, params)
            answers = teacher(x)
            value = disagreement(student(x), answers).mean()
            return settings.balance * losses.negative_entropy(jax.nn.softmax(answers).mean(axis=0)) - value, value

        gradient, value = jax.grad(objective, has_aux=True)(state.params)
        return generators.updated(state, gradient, settings), value

    return lax.scan(step, state, jax.random.split(key, settings.num_steps))


METHOD = Method(
    settings,
    next,
    init,
    defaults={**generators.DEFAULTS, "disagreement": "kl", "balance": 100.0, "student": dict(generators.STUDENT)},
    sequential=True,
    training=lambda settings: settings.student,
)
