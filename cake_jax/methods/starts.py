"""The start samples as they are: the teacher labels what `synthesis.start` draws, and no step follows.

A sample costs one query and needs no gradient. With strokes or leaves, this is the control of methods that start there.
"""

import dataclasses

from jax import Array

from cake_jax.methods.method import Method, Round
from cake_jax.synthesis import SynthesisSettings, checked, diagnose, draw_batch, labelled
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Queryable


def prepare(settings: SynthesisSettings, spec: DataSpec) -> SynthesisSettings:
    """Returns the checked settings with 0 steps, and one candidate for each sample.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    return checked(dataclasses.replace(settings, num_steps=0, candidates=1), spec)


def make_round(
    key: Array, state: tuple, teacher: Queryable, student: Teacher | None, settings: SynthesisSettings, batch: int
) -> Round:
    """Draws the same start samples as CAKE with one candidate, and lets the teacher label them."""
    x, target = draw_batch(key, settings, teacher.spec, batch)
    samples = labelled(x, teacher.predict(x), target, settings, batch)
    return Round(state, samples, diagnose(samples, settings))


STARTS = Method(SynthesisSettings, make_round, prepare=prepare, access="labels")
