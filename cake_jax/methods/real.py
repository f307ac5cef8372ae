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
from cake_jax.methods import cake
from cake_jax.methods.method import Method, Queries, Round
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Examples


class RealInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      target_accuracy: Share of the images whose class the teacher tells.
    """

    target_accuracy: float


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> SynthesisSettings:
    """The same settings with T = 0; of them only the number of samples matters."""
    return cake.settings(dataclasses.replace(common, num_steps=0), own, spec)


def init(key: Array, spec: DataSpec, settings: SynthesisSettings, data: Examples | None) -> Examples:
    """The training data, x `[N, *shape]` and classes `[N]`."""
    assert data is not None
    return data


def next(
    key: Array, state: Examples, teacher: Teacher, student: Teacher | None, settings: SynthesisSettings, batch: int
) -> Round:
    """The next images in their order, from the first again after the last."""
    x, classes = state
    rows = (batch * settings.batch_size + np.arange(settings.batch_size)) % len(x)
    logits = predict(teacher, x[rows])
    samples = synthesis.labelled(x[rows], logits, classes[rows].astype(np.int32), settings, batch)
    accuracy = float((logits.argmax(-1) == samples.target).mean())
    return Round(state, samples, RealInfo(accuracy), Queries(forward=len(rows)))


METHOD = Method(settings, next, init, needs="labels", reads_data=True)
