"""Comparison of runs with several methods: a table and a figure."""

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from cake_jax.report.figures.boundaries import decision_boundaries
from cake_jax.report.record import Record
from cake_jax.report.tables import RunFigures, markdown, percent, run_figures
from cake_jax.stores.metrics import MetricsLog

# Headings of columns, and the value of a run in each. NaN if the value is unknown.
COLUMNS: dict[str, Callable[[RunFigures], float]] = {
    "accuracy, %": lambda run: percent(run.student_accuracy),
    "agreement, %": lambda run: percent(run.agreement),
    "on the grid, %": lambda run: percent(run.grid_agreement),
    "logit gap, end / start": lambda run: _gap_ratio(run.logit_gaps),
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
      runs: Contents of `results.json` with two more entries: `title`, the name of the row, and `logit_gaps`, the result
        of the function `logit_gaps`.
    """
    grouped = _by_title(runs)
    columns = []
    for heading, value in COLUMNS.items():
        cells = [_mean([value(run) for run in own]) for own in grouped.values()]
        if set(cells) != {"-"}:
            columns.append((heading, *cells))
    header, *rows = zip(("method", *grouped), *columns, strict=True)
    return markdown(header, rows)


def figure(runs: list[dict[str, Any]], records: Mapping[str, Record]) -> Figure:
    """Decision regions and samples for 2-dimensional inputs, else `accuracies`.

    Args:
      runs: As `table` takes them.
      records: One run for each title. The regions are theirs, with the teacher of the first.
    """
    first = next(iter(records.values()))
    if first.teacher is None or first.teacher.spec.shape != (2,):
        return accuracies(runs)
    students = {title: (record.student, record.samples.select()) for title, record in records.items()}
    return decision_boundaries(first.teacher, students, first.dataset, columns=3)


def accuracies(runs: list[dict[str, Any]]) -> Figure:
    """The students' test accuracies: one line for each title, with the mean of its runs, and the teachers' mean.

    Args:
      runs: As `table` takes them.
    """
    grouped = _by_title(runs)
    figure = Figure(figsize=(6.4, 1.0 + 0.38 * len(grouped)), layout="constrained")
    axes = figure.subplots()
    for place, own in enumerate(grouped.values()):
        values = [percent(run.student_accuracy) for run in own]
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="tab:blue")
        axes.plot(statistics.mean(values), place, "|", markersize=18, markeredgewidth=2, color="tab:blue")
    teachers = statistics.mean(percent(run.teacher_accuracy) for own in grouped.values() for run in own)
    axes.axvline(teachers, linestyle="--", color="tab:gray", label="teacher")
    axes.set_yticks(range(len(grouped)), list(grouped))
    axes.invert_yaxis()
    axes.set_xlabel("student's test accuracy, % (dot: one seed, bar: mean)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    return figure


def _by_title(runs: list[dict[str, Any]]) -> dict[str, list[RunFigures]]:
    """The figures of the runs by title. Titles are in the order of their first run."""
    grouped: dict[str, list[RunFigures]] = {}
    for run in runs:
        grouped.setdefault(run["title"], []).append(run_figures(run))
    return grouped


def _gap_ratio(gaps: dict[str, float] | None) -> float:
    return gaps["end"] / gaps["start"] if gaps else math.nan


def _mean(values: list[float]) -> str:
    """Mean and standard deviation of the values that are not NaN, as text. A dash if there are none.

    Integers have no deviation.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    if all(isinstance(value, int) for value in known):
        return f"{round(statistics.mean(known)):,}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known) if len(known) > 1 else 0:.2f}"
