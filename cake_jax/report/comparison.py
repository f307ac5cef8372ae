"""Comparison of runs with several methods: a table and a figure."""

import statistics
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from cake_jax.report.tables import RunFigures, markdown, run_figures
from cake_jax.stores.metrics import MetricsLog

# Heading of a column, and the value that it shows of a run.
COLUMNS: dict[str, Callable[[RunFigures], float | None]] = {
    "accuracy, %": lambda run: _percent(run.student_accuracy),
    "agreement, %": lambda run: _percent(run.agreement),
    "on the grid, %": lambda run: _percent(run.grid_agreement),
    "logit gap, end / start": lambda run: run.logit_gaps and run.logit_gaps["end"] / run.logit_gaps["start"],
    "samples": lambda run: run.samples,
    "forward queries": lambda run: run.forward_queries,
    "gradient queries": lambda run: run.gradient_queries,
    "seconds": lambda run: run.seconds["synthesis"] + run.seconds["student"],
}


def logit_gaps(log: MetricsLog) -> dict[str, float] | None:
    """The logit gap of a run: the median over its mini-batches, at the `start` and the `end` of the steps.

    Returns:
      None if the method does not log a logit gap.
    """
    rows = [row for row in log.read("synthesis") if "logit_gap" in row]
    if not rows:
        return None
    columns = {"start": "logit_gap_start", "end": "logit_gap"}
    return {moment: statistics.median(row[column] for row in rows) for moment, column in columns.items()}


def table(runs: list[dict[str, Any]]) -> str:
    """A table in Markdown: one row for each title, with mean and standard deviation over its runs.

    A column without any value is left out.

    Args:
      runs: Contents of `results.json` with two more entries: `title`, the name of the row, and `logit_gaps`, as
        `logit_gaps` returns them.
    """
    grouped = _by_title(runs)
    columns = {
        name: value
        for name, value in COLUMNS.items()
        if any(value(run) is not None for own in grouped.values() for run in own)
    }
    rows = [[title, *(_mean([value(run) for run in own]) for value in columns.values())] for title, own in grouped.items()]
    return markdown(["method", *columns], rows)


def accuracies(runs: list[dict[str, Any]]) -> Figure:
    """The students' test accuracies: one line for each title, with the mean of its runs, and the teachers' mean.

    Args:
      runs: As `table` takes them.
    """
    grouped = _by_title(runs)
    figure = Figure(figsize=(6.4, 1.0 + 0.38 * len(grouped)), layout="constrained")
    axes = figure.subplots()
    for place, own in enumerate(grouped.values()):
        values = [_percent(run.student_accuracy) for run in own]
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="tab:blue")
        axes.plot(statistics.mean(values), place, "|", markersize=18, markeredgewidth=2, color="tab:blue")
    teachers = statistics.mean(_percent(run.teacher_accuracy) for own in grouped.values() for run in own)
    axes.axvline(teachers, linestyle="--", color="tab:gray", label="teacher")
    axes.set_yticks(range(len(grouped)), list(grouped))
    axes.invert_yaxis()
    axes.set_xlabel("student's test accuracy, % (dot: one seed, bar: mean)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    return figure


def _by_title(runs: list[dict[str, Any]]) -> dict[str, list[RunFigures]]:
    """The figures of the runs by title, in the order of the first run of each."""
    grouped: dict[str, list[RunFigures]] = {}
    for run in runs:
        grouped.setdefault(run["title"], []).append(run_figures(run))
    return grouped


def _mean(values: list[float | None]) -> str:
    """Mean and standard deviation as text. Integers have no deviation."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if all(isinstance(value, int) for value in known):
        return f"{round(statistics.mean(known)):,}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known) if len(known) > 1 else 0:.2f}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
