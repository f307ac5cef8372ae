"""CAKE and LAKE: contrastive sets that diffuse toward the teacher's decision boundary.

Source: Braun, Mundt, Kersting, AISTATS 2024 (arXiv 2306.02090), Algorithm 1. LAKE is CAKE with Langevin noise.
"""

import dataclasses

from jax import Array

from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis import SynthesisSettings, minibatch
from cake_jax.teachers import Teacher


@dataclasses.dataclass(frozen=True)
class CakeSettings(SynthesisSettings):
    """Settings of CAKE.

    Attributes:
      langevin_temperature: Langevin temperature T_L.
    """

    langevin_temperature: float = 0.0


@dataclasses.dataclass(frozen=True)
class LakeSettings(SynthesisSettings):
    """Settings of LAKE.

    Attributes:
      langevin_temperature: Langevin temperature T_L.
    """

    langevin_temperature: float = 1.0


def make_round(
    key: Array, state: tuple, teacher: Teacher, student: Teacher | None, settings: SynthesisSettings, batch: int
) -> Round:
    """Makes mini-batch number `batch`, independently of all others."""
    samples, info = minibatch(key, teacher, settings, batch)
    return Round(state, samples, info)


def queries(settings: SynthesisSettings, access: str, batch: int) -> Queries:
    """A gradient query for each step of a sample, and a forward query for each candidate and for each sample."""
    candidates = settings.candidates if settings.candidates > 1 else 0
    return Queries(settings.batch_size * (1 + candidates), gradient=settings.batch_size * settings.num_steps)


CAKE = Method(CakeSettings, make_round, queries)
LAKE = Method(LakeSettings, make_round, queries)
