"""What the report of a run is made of."""

from pathlib import Path
from typing import Any, NamedTuple

from cake_jax.data import Dataset
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher


class Record(NamedTuple):
    """A run, as the report sees it.

    Attributes:
      folder: The run's folder.
      results: The content of `results.json`.
      log: The metrics.
      teacher: The run's own teacher, or None.
      student: The student, or None.
      samples: The sample store. May be empty.
      dataset: The real data, or None.
    """

    folder: Path
    results: dict[str, Any]
    log: MetricsLog
    teacher: Teacher | None
    student: Teacher | None
    samples: SampleStore
    dataset: Dataset | None
