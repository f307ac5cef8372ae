"""The protocol of a metrics writer."""

from collections.abc import Mapping
from typing import Any, Protocol


class MetricsWriter(Protocol):
    """Writes a copy of the metrics log in another format or to another place.

    A resumed run writes steps again that it has written before a stop. The writer must not record such a step twice.
    Several processes may write the metrics of one run. Each step is written by one of them.
    """

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes the values of one step.

        Args:
          stage: `teacher`, `synthesis`, `student` or `evaluation`.
          step: Number of epochs done, or number of the mini-batch.
          values: JSON-ready values by name.
        """
        ...

    def close(self) -> None:
        """Finishes writing. No `write` follows."""
        ...
