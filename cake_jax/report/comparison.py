"""Comparison of runs with several methods: a table and a figure."""

import math
import re
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from cake_jax.report.figures.boundaries import decision_boundaries
from cake_jax.report.record import Record
from cake_jax.report.tables import RunFigures, markdown, percent, run_figures, spread
from cake_jax.stores.metrics import MetricsLog

# Headings of the columns, and functions that return a run's value in a column. NaN if the value is unknown.
COLUMNS: dict[str, Callable[[RunFigures], float]] = {
    "accuracy, %": lambda run: percent(run.student_accuracy),
    "agreement, %": lambda run: percent(run.agreement),
    "guide student, %": lambda run: percent(run.guide_accuracy),
    "on the grid, %": lambda run: percent(run.grid_agreement),
    "on starts, %": lambda run: percent(run.starts_agreement),
    "logit gap, end / start": lambda run: _gap_ratio(run.logit_gaps),
    "samples": lambda run: run.samples,
    "forward queries": lambda run: run.forward_queries,
    "gradient queries": lambda run: run.gradient_queries,
    "seconds": lambda run: run.seconds["synthesis"] + run.seconds["student"],
}


def logit_gaps(log: MetricsLog) -> dict[str, float] | None:
    """The logit gap of a run, as median over its mini-batches.

    Returns:
      `start` and `end`, the gaps before and after the steps. None if the method does not log a logit gap.
    """
    rows = [row for row in log.read("synthesis") if "logit_gap" in row]
    if not rows:
        return None
    columns = {"start": "logit_gap_start", "end": "logit_gap"}
    return {moment: statistics.median(row[column] for row in rows) for moment, column in columns.items()}


def table(runs: list[dict[str, Any]], *, heading: str = "method") -> str:
    """A table in Markdown. Each title has one row of means and standard deviations over its runs.

    Columns without values are left out.

    Args:
      runs: Contents of `results.json` with more entries: `title`, the name of the row, `logit_gaps`, the result of the
        function `logit_gaps`, and if known `starts_agreement`, the result of `evaluation.starts_agreement`.
      heading: Heading of the column of titles.
    """
    grouped = _by_title(runs)
    columns = []
    for name, value in COLUMNS.items():
        cells = [_mean([value(run) for run in own]) for own in grouped.values()]
        if set(cells) != {"-"}:
            columns.append((name, *cells))
    header, *rows = zip((heading, *grouped), *columns, strict=True)
    return markdown(header, rows)


def rank_correlation(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Spearman's rank correlation of an agreement without data with the agreement on the test set, over runs.

    It tells how well the figure that needs no data orders students.

    Args:
      pairs: Both agreements of each run.

    Returns:
      The correlation, from -1 to 1. None if fewer than three runs have both figures, or if all have the same figure.
    """
    known = [pair for pair in pairs if None not in pair]
    if len(known) < 3 or any(len(set(values)) == 1 for values in zip(*known, strict=True)):
        return None
    return float(stats.spearmanr(*zip(*known, strict=True)).statistic)


def figure(runs: list[dict[str, Any]], records: Mapping[str, Record]) -> Figure:
    """Draws decision regions and samples if inputs are 2-dimensional, else `accuracies`.

    Args:
      runs: See `table`.
      records: One run for each title, whose student and samples are drawn. The first run's teacher is drawn too.
    """
    first = next(iter(records.values()))
    if first.teacher is None or first.teacher.spec.shape != (2,):
        return accuracies(runs)
    students = {title: (record.student, record.samples.select()) for title, record in records.items()}
    columns = 2 if len(students) == 3 else 3  # the teacher has a panel of its own
    return decision_boundaries(first.teacher, students, first.dataset, columns=columns)


def accuracies(runs: list[dict[str, Any]]) -> Figure:
    """Draws the students' test accuracies and their mean, one line for each title. A dashed line is the teachers' mean.

    Args:
      runs: See `table`.
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
    axes.set_yticks(range(len(grouped)), [_label(title) for title in grouped])
    axes.set_ylim(len(grouped) - 0.5, -0.5)
    axes.set_xlabel("student's test accuracy, % (dot: one seed, bar: mean)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, loc="outside upper right")
    return figure


def _label(title: str) -> str:
    """A title for a figure: fields without their section, in lines of at most 30 characters."""
    method, *fields = title.split(":")
    short = ", ".join(re.sub(r"^[^=]*\.", "", field) for field in fields)
    return textwrap.fill(f"{method}: {short}" if short else method, 30)


def _by_title(runs: list[dict[str, Any]]) -> dict[str, list[RunFigures]]:
    """The results of the runs by title. Titles are in the order of their first run."""
    grouped: dict[str, list[RunFigures]] = {}
    for run in runs:
        grouped.setdefault(run["title"], []).append(run_figures(run))
    return grouped


def _gap_ratio(gaps: dict[str, float] | None) -> float:
    """The ratio of the gaps. NaN if there are none, or if the start samples have the same logits."""
    return gaps["end"] / gaps["start"] if gaps and gaps["start"] else math.nan


def _mean(values: list[float]) -> str:
    """Mean and standard deviation of the values that are not NaN, as text. A dash if there are none.

    Integers and a single value have no standard deviation.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    if all(isinstance(value, int) for value in known):
        return f"{round(statistics.mean(known)):,}"
    return spread(known, ".2f")
