"""The ceiling: the teacher labels its real training data (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

The one method that reads real data. Its samples are counted like any other's: where more are asked for than there are
images, each comes several times, so that the student takes as many steps as with the other methods.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from cake_jax import synthesis
from cake_jax.evaluation import predict
from cake_jax.methods.method import Method, Queries, Round, combined
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher
from cake_jax.types import CakeError, DataSpec, Examples


@dataclasses.dataclass(frozen=True)
class RealSettings(SynthesisSettings):
    """Settings of `real`.

    Attributes:
      hard_label: What the loss's hard part holds the student to: the classes of the `data`, as in Hinton's formula, or
        the `teacher`'s argmax, as with every other method.
    """

    hard_label: str = "data"


class RealInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      target_accuracy: Share of the images whose class the teacher tells.
    """

    target_accuracy: float


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> RealSettings:
    """The same settings with T = 0; of them only the number of samples matters.

    Raises:
      CakeError: An unknown `hard_label`.
    """
    if own["hard_label"] not in ("data", "teacher"):
        raise CakeError(f"methods.real.hard_label: '{own['hard_label']}' is not one of data, teacher")
    return combined(RealSettings, common, {**own, "num_steps": 0})


def init(key: Array, spec: DataSpec, settings: RealSettings, data: Examples | None) -> Examples:
    """The training data, x `[N, *shape]` and classes `[N]`."""
    assert data is not None
    return data


def next(
    key: Array,
    state: Examples,
    teacher: Queryable,
    student: Teacher | None,
    settings: RealSettings,
    batch: int,
) -> Round:
    """The next images in their order, from the first again after the last."""
    x, classes = state
    rows = (batch * settings.batch_size + np.arange(settings.batch_size)) % len(x)
    logits = predict(teacher, x[rows])
    answers = logits.argmax(-1)
    target = classes[rows] if settings.hard_label == "data" else answers
    samples = synthesis.labelled(x[rows], logits, target.astype(np.int32), settings, batch)
    return Round(state, samples, RealInfo(float((answers == classes[rows]).mean())), Queries(forward=len(rows)))


METHOD = Method(settings, next, init, defaults={"hard_label": "data"}, needs="labels", reads_data=True)
