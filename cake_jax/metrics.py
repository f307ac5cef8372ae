"""The metrics log of a run: one JSON object a line, with `stage`, `step` and values."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cake_jax.files import write_atomically


class MetricsLog:
    """Appends to `metrics.jsonl`, and reads it back.

    A line is written before the checkpoint or shard that it speaks of. So after a kill the log may be ahead, never
    behind; `keep` cuts it back to what the disk holds.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, stage: str, step: int, **values: Any) -> None:
        """Adds a line.

        Args:
          stage: `teacher`, `synthesis`, `student` or `evaluation`.
          step: Epochs done, or the number of the mini-batch.
          **values: JSON-ready values.
        """
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")

    def read(self, stage: str | None = None) -> list[dict[str, Any]]:
        """All whole lines, or those of one stage, in order."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row for row in rows if stage in (None, row["stage"])]

    def keep(self, stage: str, wanted: Callable[[int], bool]) -> None:
        """Drops the lines of `stage` whose step is not `wanted`, and a torn last line."""
        if self.path.exists():
            kept = [row for row in self.read() if row["stage"] != stage or wanted(row["step"])]
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def seconds(self, stage: str) -> float:
        """Seconds that a stage took over all its lines."""
        return sum(row.get("seconds", 0.0) for row in self.read(stage))
