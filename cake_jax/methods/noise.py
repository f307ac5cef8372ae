"""The floor that every method must beat: the teacher labels Gaussian noise, N(0, I)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax import Array

from cake_jax import synthesis
from cake_jax.evaluation import predict
from cake_jax.methods import cake
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher
from cake_jax.types import DataSpec


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> SynthesisSettings:
    """The same settings with T = 0 and a normal start: no gradient is asked for."""
    return cake.settings(dataclasses.replace(common, num_steps=0, start="normal"), own, spec)


def next(
    key: Array,
    state: tuple,
    teacher: Queryable,
    student: Teacher | None,
    settings: SynthesisSettings,
    batch: int,
) -> Round:
    """The start samples that CAKE would have, with the teacher's answers to them."""
    x, target = synthesis.starts(key, settings, teacher.spec, batch)
    samples = synthesis.labelled(x, predict(teacher, x), target, settings, batch)
    return Round(state, samples, synthesis.diagnose(samples, settings), Queries(forward=len(x)))


METHOD = Method(settings, next, needs="labels")
