"""Runs a config with all combinations of several values of its fields.

    python scripts/sweep.py --config=configs/digits.py:few --config.synthesis.step_size=0.1,0.01 --config.seed=0,1,2

A field with several values, separated by commas, is part of the grid. All other arguments go to each run. `--random=20`
draws 20 of the combinations, with the seed `--draw_seed`.

Each run has a folder `<workdir>/<values>`. Each teacher is trained once, in `<workdir>/teacher-<values>`, and all runs
that need the same teacher use it. The default workdir is `runs/sweep-<config name>[-<variant>]`. An unfinished run is
resumed, and a finished one is used as it is. So a sweep may be extended by more values. A failed run is named at the
end, after all others.

Runs follow one another. `--devices=0,1,2` runs one at a time on each of these GPUs, as in CUDA_VISIBLE_DEVICES.

The script prints a table in Markdown with means and standard deviations over the seeds, writes all results to `--out`,
by default `<workdir>/sweep.json`, and draws the students' accuracies to `--figure`, by default `<workdir>/sweep.png`.
Accuracies are on test data, so do not choose settings by them.
"""

import queue
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cake_jax.cli import grid, many_runs
from cake_jax.report import comparison
from cake_jax.run.run_folder import METRICS
from cake_jax.stores.metrics import MetricsLog
from cake_jax.types import CakeError

_TEACHER_ALONE = [f"--config.run.{stage}=False" for stage in ("synthesis", "student", "evaluation")]


def main() -> None:
    """Trains each teacher once, and then runs all points."""
    flags, others = many_runs.parse(
        __doc__,
        {
            "random": ("0", "number of combinations to draw at random; 0 for all"),
            "draw_seed": ("0", "seed of the draw"),
            "devices": ("", "GPUs, each with one run at a time"),
        },
    )
    fields, rest = grid.parse(others)
    try:
        points = grid.points(fields, *(_number(name, getattr(flags, name)) for name in ("random", "draw_seed")))
    except CakeError as error:
        sys.exit(f"error: {error}")
    path, _, variant = flags.config.partition(":")
    workdir = flags.workdir or Path("runs", "-".join(filter(None, ("sweep", Path(path).stem, variant))))
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for device in flags.devices:
        free.put(device)

    def run(folder: Path, arguments: Sequence[str]) -> dict[str, Any] | str:
        """The results of one run, or the message of its failure."""
        device = free.get()
        # Bars of several runs would overwrite each other.
        quiet = ["--quiet"] if len(flags.devices) > 1 else []
        try:
            visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
            return many_runs.run(flags.config, folder, [*rest, *arguments, *quiet], visible)
        except SystemExit as failure:
            return str(failure)
        finally:
            free.put(device)

    def train(teacher: grid.Point) -> list[str]:
        """Trains a teacher. Returns the argument with which others use it, or nothing if none had to be trained."""
        folder = workdir / "-".join(filter(None, ("teacher", teacher.folder)))
        results = run(folder, [*teacher.arguments, *_TEACHER_ALONE])
        has_trained = isinstance(results, dict) and results["seconds"]["teacher"]
        return [f"--config.teacher.from_run={folder}"] if has_trained else []

    teachers = list(dict.fromkeys(point.teacher for point in points))
    with ThreadPoolExecutor(len(flags.devices)) as pool:
        shared = dict(zip(teachers, pool.map(train, teachers), strict=True))
        ended = pool.map(lambda point: run(workdir / point.folder, [*point.arguments, *shared[point.teacher]]), points)
        done = dict(zip(points, ended, strict=True))
    runs, failures = [], []
    for point in points:
        results = done[point]
        if isinstance(results, str):
            failures.append(results)
        else:
            gaps = comparison.logit_gaps(MetricsLog(workdir / point.folder / METRICS))
            runs.append({"title": point.title, **results, "logit_gaps": gaps, "values": dict(point.values)})
    if runs:
        print(comparison.table(runs, heading="settings"))
        many_runs.write(flags.out or workdir / "sweep.json", runs)
        comparison.accuracies(runs).savefig(flags.figure or workdir / "sweep.png", dpi=110)
    if failures:
        sys.exit("\n".join(failures))


def _number(name: str, values: list[str]) -> int:
    try:
        (value,) = map(int, values)
    except ValueError:
        raise CakeError(f"{name}: {','.join(values)} is not a whole number") from None
    return value


if __name__ == "__main__":
    main()
