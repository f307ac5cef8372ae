"""CAKE and LAKE: contrastive sets that diffuse toward the teacher's decision boundary.

One method: LAKE is CAKE with a Langevin temperature of 1 (`config.methods.lake`). Source: Braun, Mundt, Kersting,
AISTATS 2024 (arXiv 2306.02090), Algorithm 1.
"""

from typing import NamedTuple

from jax import Array

from cake_jax.methods.method import Method
from cake_jax.synthesis import SynthesisInfo, minibatch
from cake_jax.synthesis_settings import SynthesisSettings, check
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, SampleBatch


class CakeState(NamedTuple):
    """Between two mini-batches there is nothing but the number of the next.

    Attributes:
      settings: How samples are made.
      batch: m.
    """

    settings: SynthesisSettings
    batch: int


def init(key: Array, spec: DataSpec, settings: SynthesisSettings, first_batch: int = 0) -> CakeState:
    """The state before mini-batch `first_batch`.

    Raises:
      CakeError: The settings do not fit `spec`.
    """
    check(settings, spec)
    return CakeState(settings, first_batch)


def next(
    key: Array, state: CakeState, teacher: Teacher, student: Teacher | None = None
) -> tuple[CakeState, SampleBatch, SynthesisInfo]:
    """The next mini-batch; the student is not looked at."""
    samples, info = minibatch(key, teacher, state.settings, state.batch)
    return state._replace(batch=state.batch + 1), samples, info


METHOD = Method(settings=lambda settings: settings, init=init, next=next)
