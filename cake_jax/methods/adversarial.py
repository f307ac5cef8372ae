"""A generator, trained with the gradients of teacher and guide student, makes inputs on which they disagree.

Sources: ZSKT (Micaelli, Storkey, NeurIPS 2019, arXiv 1905.09768), where the disagreement is KL(teacher || student), and
DFAD (Fang et al. 2019, arXiv 1912.11006), where it is the L1 distance of logits. In both papers the student trains on
the newest samples. Here it trains on the pool. ZSKT's attention maps are left out, because they lie inside the teacher.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import checks, losses
from cake_jax.methods.cake import queries
from cake_jax.methods.method import Method, Round
from cake_jax.methods.shared import generator_training
from cake_jax.methods.shared.generator_training import GeneratorSettings, GeneratorState, GuidedSettings
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Examples

# (student logits [N, K], teacher logits [N, K]) -> one value for each sample, [N]
DISAGREEMENTS = {
    "kl": losses.kl_divergence,
    "l1": lambda student, teacher: jnp.abs(student - teacher).mean(axis=-1),
}


@dataclasses.dataclass(frozen=True)
class AdversarialSettings(GuidedSettings):
    """Settings of `adversarial`.

    Attributes:
      disagreement: A name in `DISAGREEMENTS`: `kl` or `l1`.
      balance: Weight of the information entropy loss of DAFL (arXiv 1904.01186): `losses.negative_entropy` of the
        teacher's mean softmax. This loss keeps all classes among the samples.
    """

    disagreement: str = "kl"
    balance: float = 100.0


class DisagreementInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      disagreement_start: Mean disagreement of student and teacher before the generator's first step.
      disagreement: Mean disagreement of student and teacher before the generator's last step.
    """

    disagreement_start: float
    disagreement: float


def prepare(settings: AdversarialSettings, spec: DataSpec) -> AdversarialSettings:
    """Checks the settings, and sets the schedule of the step size to constant.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    checks.one_of("methods.adversarial.disagreement", settings.disagreement, DISAGREEMENTS)
    checks.not_negative("methods.adversarial.balance", settings.balance)
    return generator_training.checked(settings, "adversarial", spec)


def init(key: Array, spec: DataSpec, settings: GeneratorSettings, data: Examples | None) -> GeneratorState:
    """Returns an untrained generator. All rounds train it."""
    return generator_training.start(key, settings, spec)


def make_round(
    key: Array,
    state: GeneratorState,
    teacher: Teacher,
    student: Teacher | None,
    settings: AdversarialSettings,
    batch: int,
) -> Round:
    """Trains the generator with new latents in each step, then draws the samples."""
    train_key, sample_key = jax.random.split(jax.random.fold_in(key, batch))
    assert student is not None
    state, disagreement = train_generator(train_key, state, teacher, jax.device_get(student), settings)
    x = generator_training.draw(sample_key, settings, student.spec, state.params)
    samples = generator_training.answered(teacher, x, settings, batch)
    info = DisagreementInfo(float(disagreement[0]), float(disagreement[-1]))
    return Round(state, samples, info)


@functools.partial(jax.jit, static_argnames="settings")
def train_generator(
    key: Array, state: GeneratorState, teacher: Teacher, student: Teacher, settings: AdversarialSettings
) -> tuple[GeneratorState, Array]:
    """Trains the generator to make student and teacher disagree.

    Args:
      key: The key of the latents.
      state: The generator.
      teacher: The teacher.
      student: The guide student.
      settings: Settings that `prepare` returns.

    Returns:
      The generator after `num_steps` steps, and the mean disagreement before each step, `[num_steps]`.
    """
    spec, disagreement = student.spec, DISAGREEMENTS[settings.disagreement]

    def step(state: GeneratorState, key: Array) -> tuple[GeneratorState, Array]:
        def objective(params: Any) -> tuple[Array, Array]:
            x = generator_training.draw(key, settings, spec, params)
            answers = teacher(x)
            value = disagreement(student(x), answers).mean()
            return settings.balance * losses.negative_entropy(jax.nn.softmax(answers).mean(axis=0)) - value, value

        gradient, value = jax.grad(objective, has_aux=True)(state.params)
        return generator_training.updated(state, gradient, settings), value

    return lax.scan(step, state, jax.random.split(key, settings.num_steps))


ADVERSARIAL = Method(
    AdversarialSettings, make_round, queries, prepare, init, sequential=True, guide=lambda settings: settings.student
)
