"""CAKE and LAKE: contrastive sets that diffuse toward the teacher's decision boundary.

One method: LAKE is CAKE with a Langevin temperature of 1 (`config.methods.lake`). Source: Braun, Mundt, Kersting,
AISTATS 2024 (arXiv 2306.02090), Algorithm 1.
"""

from collections.abc import Mapping
from typing import Any

from jax import Array

from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis import minibatch
from cake_jax.synthesis_settings import SynthesisSettings, check
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> SynthesisSettings:
    """The common settings as they are, if they fit `spec`.

    Raises:
      CakeError: They do not.
    """
    check(common, spec)
    return common


def next(
    key: Array, state: tuple, teacher: Teacher, student: Teacher | None, settings: SynthesisSettings, batch: int
) -> Round:
    """Mini-batch number `batch`; it depends on no other, and not on the student."""
    samples, info = minibatch(key, teacher, settings, batch)
    count = samples.num_samples
    return Round(state, samples, info, Queries(forward=count, gradient=count * settings.num_steps))


METHOD = Method(settings, next, defaults={"langevin_temperature": 0.0})
LAKE = METHOD._replace(defaults={"langevin_temperature": 1.0})
