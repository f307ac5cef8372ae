"""The upper bound: the teacher labels its real training data (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

No other method reads real data. If `num_samples` is above the number of images, the images repeat. So the student takes
as many steps as with the other methods.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax import Array

from cake_jax import checks
from cake_jax.methods.method import Method, Round
from cake_jax.synthesis import SynthesisSettings, checked, labelled
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Examples, Queryable


@dataclasses.dataclass(frozen=True)
class RealSettings(SynthesisSettings):
    """Settings of `real`.

    Attributes:
      hard_label: The hard label in the student's loss. `data` takes the image's class, as in Hinton's formula.
        `teacher` takes the teacher's argmax, as with every other method.
    """

    hard_label: str = "data"


class RealInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      target_accuracy: Share of the images that the teacher classifies correctly.
    """

    target_accuracy: float


def prepare(settings: RealSettings, spec: DataSpec) -> RealSettings:
    """Returns the checked settings with 0 steps.

    Raises:
      CakeError: A value does not fit.
    """
    checks.one_of("methods.real.hard_label", settings.hard_label, ("data", "teacher"))
    return checked(dataclasses.replace(settings, num_steps=0), spec)


def init(key: Array, spec: DataSpec, settings: RealSettings, data: Examples | None) -> Examples:
    """Returns the training data: x `[N, *shape]` and classes `[N]`."""
    assert data is not None
    return data


def make_round(
    key: Array, state: Examples, teacher: Queryable, student: Teacher | None, settings: RealSettings, batch: int
) -> Round:
    """Labels the next images in their order. The first image follows the last."""
    x, classes = state
    rows = (batch * settings.batch_size + np.arange(settings.batch_size)) % len(x)
    logits = teacher.predict(x[rows])
    answers = logits.argmax(-1)
    target = classes[rows] if settings.hard_label == "data" else answers
    samples = labelled(x[rows], logits, target.astype(np.int32), settings, batch)
    info = RealInfo(float((answers == classes[rows]).mean()))
    return Round(state, samples, info)


REAL = Method(RealSettings, make_round, prepare=prepare, init=init, access="labels", reads_data=True)
