"""The protocol of a metrics writer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class MetricsWriter(Protocol):
    """Writes a copy of the metrics log in another format or to another place.

    A resumed run writes steps again that it has written before a stop. The writer must not record such a step twice.
    Several processes may write the metrics of one run. Each step is written by one of them.

    A writer that needs a library names it in the class attribute `library`, and imports it only when it is used.
    """

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes the values of one step.

        Args:
          stage: `teacher`, `synthesis`, `student` or `evaluation`.
          step: Number of epochs done, or number of the mini-batch.
          values: JSON-ready values by name.
        """
        ...

    def picture(self, name: str, path: Path) -> None:
        """Writes a figure of the report.

        Args:
          name: Name of the figure.
          path: The PNG file.
        """
        ...

    def close(self) -> None:
        """Finishes writing. No other call follows."""
        ...


def scalars(stage: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the values of a step, each as `<stage>/<name>`."""
    return {f"{stage}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
