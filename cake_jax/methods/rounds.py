"""The loop over a method's rounds, and the guide student that trains between them."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from cake_jax import keys
from cake_jax.methods.method import GuideSettings, Method, Round
from cake_jax.synthesis import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.training import DistillationLoss, Labels, from_logits, trainer
from cake_jax.types import DataSpec, Queryable, SampleBatch


class GuideStudent:
    """A student that trains after each round on all samples so far.

    Attributes:
      state: Its training state.
    """

    def __init__(
        self, key: Array, module: Any, spec: DataSpec, settings: GuideSettings, num_batches: int, batch_size: int
    ) -> None:
        """An untrained student.

        Args:
          key: The key of the whole synthesis.
          module: The architecture.
          spec: Specification of the inputs.
          settings: How the student is trained after each round.
          num_batches: The number of rounds.
          batch_size: The number of samples in a round.
        """
        init_key, self._key = jax.random.split(keys.guide_student(key))
        self._module, self._spec, self._training = module, spec, settings.training()
        self.state = trainer.init(init_key, module, spec, self._training)
        count = num_batches * batch_size
        self._steps_per_call = max(1, batch_size // settings.batch_size)
        self._x = np.empty((count, *spec.shape), np.float32)
        self._labels = Labels(np.empty(count, np.int32), np.empty((count, spec.num_classes), np.float32))
        self._count = 0

    @property
    def model(self) -> Teacher:
        """The student as it is now."""
        return trainer.as_model(self._module, self.state, self._spec)

    def resume(self, state: trainer.TrainState, batches: Iterable[SampleBatch]) -> None:
        """Goes on from a saved state, which was trained on `batches`."""
        self.state = state
        for samples in batches:
            self._add(samples)

    def train_on(self, samples: SampleBatch, batch: int) -> dict[str, float]:
        """Adds the samples of round `batch` and trains on all samples so far. Returns figures of the last epoch."""
        self._add(samples)
        settings = dataclasses.replace(self._training, epochs=(batch + 1) * self._training.epochs)
        labels = Labels(*(field[: self._count] for field in self._labels))
        *_, (self.state, info) = trainer.epochs(
            self._key,
            self.state,
            self._module,
            self._spec,
            self._x[: self._count],
            labels,
            settings,
            loss=DistillationLoss(),
            steps_per_call=self._steps_per_call,
        )
        return {"student_loss": info.loss, "student_accuracy": info.accuracy}

    def _add(self, samples: SampleBatch) -> None:
        rows = slice(self._count, self._count + samples.num_samples)
        self._x[rows] = samples.x
        for field, new in zip(self._labels, from_logits(samples.logits), strict=True):
            field[rows] = new
        self._count = rows.stop


class RoundResult(NamedTuple):
    """A round that was made.

    Attributes:
      batch: Number of the round.
      round: The method's result.
      figures: The round's figures for the log: the method's diagnostics, and those of the guide student.
    """

    batch: int
    round: Round
    figures: dict[str, float]


def make_rounds(
    key: Array,
    method: Method,
    settings: SynthesisSettings,
    teacher: Queryable,
    state: Any,
    batches: Iterable[int],
    guide: GuideStudent | None = None,
) -> Iterator[RoundResult]:
    """Makes rounds one after another.

    Args:
      key: The key of the whole synthesis.
      method: The method.
      settings: Settings that `method.prepare` returned.
      teacher: The teacher, which gives at least `method.access`.
      state: The state before the first of these rounds: from `method.init`, or saved after the round before.
      batches: Numbers of the rounds, in order.
      guide: The guide student, if the method has one.

    Yields:
      Each round, after the guide student has trained on its samples.
    """
    for batch in batches:
        result = method.make_round(key, state, teacher, guide.model if guide else None, settings, batch)
        figures = result.info._asdict()
        if guide:
            figures |= guide.train_on(result.samples, batch)
        state = result.state
        yield RoundResult(batch, result, figures)
