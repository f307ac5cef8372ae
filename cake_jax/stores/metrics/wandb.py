"""Metrics and figures as a run of Weights & Biases."""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cake_jax import parallel
from cake_jax.stores.metrics.writer import scalars
from cake_jax.types import CakeError, first_line


class WandB:
    """A `MetricsWriter` that records a run of W&B. The environment variables of W&B, such as `WANDB_MODE`, apply.

    The file `wandb-run.txt` holds the id of the W&B run, and what it has recorded. A resumed run continues it. A step
    is noted in the file before it is sent, so that it is never sent twice. W&B writes later, so a kill may lose steps.

    Only the first process records, because a W&B run belongs to one process. So the mini-batches that other processes
    make are missing.
    """

    library = "wandb"

    def __init__(self, folder: Path) -> None:
        """Starts the W&B run, or continues it.

        Raises:
          CakeError: W&B refuses, for example because nobody is logged in.
        """
        self._run: Any = None
        if not parallel.is_first():
            return
        import wandb

        folder = Path(folder)
        self._notes = folder / "wandb-run.txt"
        run_id, *recorded = self._notes.read_text().split("\n") if self._notes.exists() else [secrets.token_hex(4)]
        try:
            self._run = wandb.init(
                id=run_id,
                resume="allow",
                project=os.environ.get("WANDB_PROJECT", "cake_jax"),
                name=os.environ.get("WANDB_NAME", folder.name),
                dir=folder,
                config=json.loads((folder / "config.json").read_text()),
            )
        except wandb.Error as error:
            advice = "run `wandb login`, or set WANDB_MODE=offline"
            raise CakeError(f"log.wandb: {first_line(error).rstrip('.')}; {advice}") from error
        self._recorded = set(recorded)
        if not recorded:
            self._notes.write_text(run_id)
        for stage in ("teacher", "synthesis", "student", "evaluation"):
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Records the numbers among the values, each as `<stage>/<name>`."""
        if self._is_new(f"{stage} {step}"):
            self._run.log(scalars(stage, {"step": step, **values}))

    def picture(self, name: str, path: Path) -> None:
        """Records a figure as `figures/<name>`."""
        if self._is_new(f"figures {name}"):
            import wandb

            self._run.log({f"figures/{name}": wandb.Image(str(path))})

    def close(self) -> None:
        """Waits until W&B has everything. If an error ends the run, its W&B run counts as failed."""
        if self._run:
            self._run.finish(exit_code=int(sys.exc_info()[0] is not None))

    def _is_new(self, line: str) -> bool:
        """Whether `line` is not in the file yet. If so, adds it."""
        if not self._run or line in self._recorded:
            return False
        self._recorded.add(line)
        with open(self._notes, "a") as file:
            file.write(f"\n{line}")
        return True
