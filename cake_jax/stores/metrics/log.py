"""The metrics log of a run: one JSON object a line, with `stage`, `step` and values."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from cake_jax.files import append_line, parse_json, read, write_atomically
from cake_jax.stores.metrics.writer import MetricsWriter
from cake_jax.types import CakeError


class MetricsLog:
    """Appends lines to `metrics.jsonl`, and reads them back.

    A line is written before its checkpoint or shard. So after a kill the log may have lines without a checkpoint or
    shard, but never lacks a line. `keep` drops the lines that have none.

    Attributes:
      path: Path of the log.
      writers: Writers that receive every line too. The log is complete without them.
    """

    def __init__(self, path: str | Path, writers: Sequence[MetricsWriter] = ()) -> None:
        self.path = Path(path)
        self.writers = tuple(writers)

    def write(self, stage: str, step: int, **values: Any) -> None:
        """Appends a line, then passes it to the writers.

        Args:
          stage: `teacher`, `synthesis`, `student` or `evaluation`.
          step: Number of epochs done, or number of the mini-batch.
          **values: JSON-ready values.
        """
        line = json.dumps({"step": step, "stage": stage, **values}) + "\n"
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))  # several processes make mini-batches
        with lock.acquire(poll_interval=0.005):
            append_line(self.path, line.encode())
        for writer in self.writers:
            writer.write(stage, step, values)

    def picture(self, name: str, path: Path) -> None:
        """Passes a figure of the report to the writers: its name and its PNG file."""
        for writer in self.writers:
            writer.picture(name, path)

    def close(self) -> None:
        """Closes the writers. The log itself stays usable."""
        for writer in self.writers:
            writer.close()

    def read(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The complete lines in order: those of one stage, or all.

        Raises:
          CakeError: A line is damaged.
        """
        lines = read(self.path).splitlines(keepends=True) if self.path.exists() else []
        rows = [self._row(number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]
        return [row for row in rows if stage in (None, row["stage"])]

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            match row := parse_json(line):
                case {"stage": str(), "step": int()}:
                    return row
        raise CakeError(f"{self.path}: line {number} is damaged; delete the line and run again")

    def keep(self, stage: str, wanted: Callable[[int], bool]) -> None:
        """Drops the lines of `stage` whose step is not `wanted`, and an incomplete last line. Calls no writer."""
        if self.path.exists():
            kept = [row for row in self.read() if row["stage"] != stage or wanted(row["step"])]
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def total(self, stage: str, name: str) -> Any:
        """The sum of a value over all lines of a stage that have it."""
        return sum(row.get(name, 0) for row in self.read(stage))
