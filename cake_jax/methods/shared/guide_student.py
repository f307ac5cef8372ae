"""The guide student, which trains between rounds. A method uses its answers."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax import Array

from cake_jax import random_keys
from cake_jax.methods.method import GuideSettings
from cake_jax.teachers import Teacher
from cake_jax.training import DistillationLoss, Labels, from_logits, trainer
from cake_jax.types import DataSpec, SampleBatch


class GuideStudent:
    """A student that trains on the pool after each round."""

    def __init__(
        self, key: Array, module: Any, spec: DataSpec, settings: GuideSettings, num_batches: int, batch_size: int
    ) -> None:
        """Initialises an untrained student.

        Args:
          key: The key of the whole synthesis.
          module: The architecture.
          spec: Specification of the inputs.
          settings: How the student is trained after each round.
          num_batches: The number of rounds.
          batch_size: The number of samples in a round.
        """
        init_key, self._key = jax.random.split(random_keys.guide_student(key))
        self._module, self._spec, self._training = module, spec, settings.training()
        self._trained = trainer.init(init_key, module, spec, self._training)
        count = num_batches * batch_size
        self._steps_per_call = max(1, batch_size // settings.batch_size)
        self._x = np.empty((count, *spec.shape), np.float32)
        self._labels = Labels(np.empty(count, np.int32), np.empty((count, spec.num_classes), np.float32))
        self._count = 0

    @property
    def model(self) -> Teacher:
        """The student in its current state."""
        return trainer.as_model(self._module, self._trained, self._spec)

    @property
    def state(self) -> Any:
        """The training state, to save."""
        return self._trained

    def resume(self, state: Any, batches: Iterable[SampleBatch]) -> None:
        """Restores a saved state, and the pool of samples `batches` on which it was trained."""
        self._trained = state
        for samples in batches:
            self._add(samples)

    def train_on(self, samples: SampleBatch, batch: int) -> dict[str, float]:
        """Adds the samples of round `batch` to the pool, and trains on it. Returns the last epoch's diagnostics."""
        self._add(samples)
        settings = dataclasses.replace(self._training, epochs=(batch + 1) * self._training.epochs)
        labels = Labels(*(field[: self._count] for field in self._labels))
        *_, (self._trained, info) = trainer.epochs(
            self._key,
            self._trained,
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
