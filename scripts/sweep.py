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

import sys
from typing import Any

from cake_jax.cli import grid, many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.report import comparison
from cake_jax.run.run_folder import METRICS
from cake_jax.stores.metrics import MetricsLog
from cake_jax.types import CakeError

_TEACHER_ALONE = [f"--config.run.{stage}=False" for stage in ("synthesis", "student", "evaluation")]


def main() -> None:
    """Trains each teacher once, and then runs all points."""
    parser = many_runs.parser(__doc__)
    parser.add_argument("--random", default=0, type=int, help="number of combinations to draw at random; 0 for all")
    parser.add_argument("--draw_seed", default=0, type=int, help="seed of the draw")
    flags, others = many_runs.known_flags(parser)
    fields, rest = grid.parse(others)
    try:
        points = grid.points(fields, flags.random, flags.draw_seed)
    except CakeError as error:
        sys.exit(f"error: {error}")
    workdir = flags.workdir or many_runs.default_folder("sweep", flags.config)

    folders = {point.teacher: workdir / "-".join(filter(None, ("teacher", point.teacher.folder))) for point in points}
    jobs = [Job(flags.config, folder, [*rest, *point.arguments, *_TEACHER_ALONE]) for point, folder in folders.items()]
    teachers = dict(zip(folders, many_runs.run_all(jobs, flags.devices), strict=True))

    def job(point: grid.Point) -> Job:
        """The job of a point. It uses the trained teacher, if one had to be trained."""
        shared, trained = folders[point.teacher], teachers[point.teacher]
        has_trained = isinstance(trained, dict) and trained["seconds"]["teacher"]
        teacher = [f"--config.teacher.from_run={shared}"] if has_trained else []
        return Job(flags.config, workdir / point.folder, [*rest, *point.arguments, *teacher])

    # Points without a teacher are left out.
    points = [point for point in points if not isinstance(teachers[point.teacher], str)]
    results = list(many_runs.run_all([job(point) for point in points], flags.devices))
    runs: list[dict[str, Any]] = []
    for point, one in zip(points, results, strict=True):
        if isinstance(one, dict):
            gaps = comparison.logit_gaps(MetricsLog(workdir / point.folder / METRICS))
            runs.append({"title": point.title, **one, "logit_gaps": gaps, "values": dict(point.values)})
    if runs:
        print(comparison.table(runs, heading="settings"))
        workdir.mkdir(parents=True, exist_ok=True)
        many_runs.write(flags.out or workdir / "sweep.json", runs)
        comparison.accuracies(runs).savefig(flags.figure or workdir / "sweep.png", dpi=110)
    many_runs.end([*teachers.values(), *results])


if __name__ == "__main__":
    main()
