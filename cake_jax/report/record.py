"""The content of a run, from which the report is made."""

from pathlib import Path
from typing import Any, NamedTuple

from cake_jax.data import Dataset
from cake_jax.evaluation import Answers
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec


class Record(NamedTuple):
    """A run.

    Attributes:
      folder: The run's folder.
      results: The content of `results.json`.
      log: The metrics of all stages.
      teacher: The run's own teacher. None if the run has none.
      student: The student. None if none was trained.
      samples: The sample store. It may be empty.
      dataset: The real data. None if they were not loaded.
      answers: What teacher and student answer on the test set. None if the student was not evaluated.
    """

    folder: Path
    results: dict[str, Any]
    log: MetricsLog
    teacher: Teacher | None
    student: Teacher | None
    samples: SampleStore
    dataset: Dataset | None
    answers: Answers | None = None

    @property
    def spec(self) -> DataSpec | None:
        """The specification of teacher and student. None if the run has neither, as with a black box and no student."""
        model = self.teacher or self.student
        return model.spec if model else None

    def class_names(self, num_classes: int) -> tuple[str, ...]:
        """The names of the classes, or their numbers."""
        return (self.spec and self.spec.class_names) or tuple(map(str, range(num_classes)))
