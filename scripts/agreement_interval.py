"""Measures how well the agreement of student and teacher on real data is known without any.

    python scripts/compare.py --config=configs/digits.py:methods --seeds=0,1,2,3,4,5,6,7,8,9 --workdir=runs/digits
    python scripts/compare.py --config=configs/mnist.py:few --seeds=0,1,2,3,4,5,6,7,8,9 --workdir=runs/mnist
    python scripts/agreement_interval.py runs/digits/* runs/mnist/* --out=agreement.json --figure=agreement.png

Each argument is the folder of a finished run with teacher and student. An estimate of the agreement is the agreement on
procedural images: on all of them, or on those for which the teacher is sure of its class. The script compares the
estimates with the agreement on the test set.

From the estimate of a run and from other runs follows an interval that should hold its agreement with a probability of
90 %. The other runs are those on other data sets, as for a user without data, or those with teachers of the same data
set and size and other seeds. The table shows how often the intervals hold the agreement, and how wide they are in the
median. An interval needs at least 19 other runs.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cake_jax import load_run
from cake_jax.arguments import Parser, output_file, write_results
from cake_jax.evaluation import starts_agreement
from cake_jax.evaluation.conformal import interval
from cake_jax.report.comparison import rank_correlation
from cake_jax.report.figures.style import COLORS
from cake_jax.report.tables import markdown
from cake_jax.run.run_folder import saved_config
from cake_jax.types import CakeError

# By name, the least probability that the teacher gives to the class of an image.
ESTIMATES = {"all images": 0.0, "sure at 90 %": 0.9, "sure at 99 %": 0.99}

Run = dict[str, Any]


def main() -> None:
    """Measures the runs, prints the table, and writes everything."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=output_file, help="JSON file for the agreements")
    parser.add_argument("--figure", type=output_file, help="PNG file for the figure")
    flags = parser.parse_args()
    try:
        runs = [_measured(folder) for folder in flags.runs]
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")
    print(table(runs))
    write_results(flags.out, runs=runs)
    if flags.figure:
        figure(runs).savefig(flags.figure, dpi=110)


def table(runs: list[Run]) -> str:
    """The table in Markdown: for each kind of teacher and estimate the rank correlation, and coverage and width.

    Args:
      runs: For each run its `dataset`, its `seed`, its `teacher_params`, its `agreement` and its `estimates`.
    """
    rows = []
    for dataset, params in sorted({_kind(run) for run in runs}):
        for name in ESTIMATES:
            known = [run for run in runs if run["estimates"][name] is not None]
            own = [run for run in known if _kind(run) == (dataset, params)]
            if not own:
                continue
            of_other_data = [
                _interval_of(run, name, [one for one in known if one["dataset"] != dataset]) for run in own
            ]
            of_own_data = [_interval_of(run, name, [one for one in own if one["seed"] != run["seed"]]) for run in own]
            cells = [text for found in (of_other_data, of_own_data) for text in _summary(own, found)]
            correlation = rank_correlation([(run["estimates"][name], run["agreement"]) for run in own])
            correlated = "-" if correlation is None else f"{correlation:.2f}"
            rows.append((dataset, f"{params:,}", f"{len(own)}", name, correlated, *cells))
    header = ("data", "teacher's parameters", "runs", "estimate", "rank correlation")
    return markdown((*header, "from other data: coverage", "width", "from other teachers: coverage", "width"), rows)


def figure(runs: list[Run]) -> Figure:
    """Draws the agreement over each estimate. A point is a run, and a colour a kind of teacher."""
    whole = Figure(figsize=(3.4 * len(ESTIMATES), 3.6), layout="constrained")
    of_runs = list(map(_kind, runs))
    kinds = sorted(sorted(set(of_runs)), key=of_runs.count, reverse=True)
    for axes, name in zip(whole.subplots(1, len(ESTIMATES), sharey=True, squeeze=False)[0], ESTIMATES, strict=True):
        for place, kind in enumerate(kinds):
            own = [run for run in runs if _kind(run) == kind and run["estimates"][name] is not None]
            points = [(100 * run["estimates"][name], 100 * run["agreement"]) for run in own]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    "o",
                    markersize=4,
                    alpha=0.6,
                    color=COLORS(place),
                    label="{}, {:,}".format(*kind),
                )
        axes.plot([0, 100], [0, 100], color="tab:gray", linewidth=0.8)
        axes.set_xlabel(f"agreement on images, {name}, %")
        axes.grid(alpha=0.3)
    whole.axes[0].set_ylabel("agreement on the test set, %")
    whole.axes[0].legend(title="data, teacher's parameters", frameon=False, fontsize=7, title_fontsize=7)
    return whole


def _measured(folder: Path) -> Run:
    """The agreement of a run on the test set, and its estimates.

    Raises:
      CakeError: The run is not finished, or lacks a model or the agreement.
    """
    run = load_run(folder)
    agreement = run.results["student"]["test_agreement"] if run.results else None
    if run.results is None or agreement is None or run.student is None or run.teacher is None:
        raise CakeError(f"{folder}: the run has no agreement of student and teacher")
    found = {name: starts_agreement(run.student, run.teacher, least) for name, least in ESTIMATES.items()}
    if found["all images"] is None:
        raise CakeError(f"{folder}: the inputs are no images")
    names = {"dataset": saved_config(folder)["dataset"]["name"], "seed": run.results["seed"], "run": str(folder)}
    return names | {"teacher_params": run.teacher.num_params, "agreement": agreement, "estimates": found}


def _kind(run: Run) -> tuple[str, int]:
    """The data set, and the number of the teacher's parameters."""
    return run["dataset"], run["teacher_params"]


def _interval_of(run: Run, name: str, others: list[Run]) -> tuple[float, float] | None:
    """The interval for a run from other runs. None if they are too few."""
    return interval(run["estimates"][name], [(other["estimates"][name], other["agreement"]) for other in others])


def _summary(runs: list[Run], intervals: list[tuple[float, float] | None]) -> tuple[str, str]:
    """The share of intervals that hold their run's agreement, and their median width. Dashes if there are none."""
    found = [(run["agreement"], *ends) for run, ends in zip(runs, intervals, strict=True) if ends is not None]
    if not found:
        return "-", "-"
    held = [low <= agreement <= high for agreement, low, high in found]
    width = statistics.median(high - low for _, low, high in found)
    return f"{sum(held) / len(held):.0%}", f"{100 * width:.0f} points"


if __name__ == "__main__":
    main()
