"""The content of a run, from which the report is made."""

from pathlib import Path
from typing import Any, NamedTuple

from cake_jax.data import Dataset
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher


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
    """

    folder: Path
    results: dict[str, Any]
    log: MetricsLog
    teacher: Teacher | None
    student: Teacher | None
    samples: SampleStore
    dataset: Dataset | None
