"""Accuracies for each pair of teacher and student architectures: a table, a heat map and a bar chart."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cake_jax.report.figures.style import COLORS
from cake_jax.report.tables import deviation, markdown, percent, run_figures, spread


def table(runs: list[dict[str, Any]], names: list[str]) -> str:
    """The students' test accuracies in percent, in Markdown: one row for each teacher, one column for each student.

    The first cell of a row has the teacher's own accuracy. Values are means and standard deviations over the seeds. A
    dash stands for a run that is not done yet.

    Args:
      runs: Contents of `results.json` of configs whose variant is `<teacher>-<student>`.
      names: The names of the architectures, in order.
    """
    cells, teachers = _by_cell(runs), _by_teacher(runs)
    heads = [f"{name}, {spread(teachers[name])}" if name in teachers else name for name in names]
    rows = [
        [head, *(spread(cells[teacher, student]) if (teacher, student) in cells else "-" for student in names)]
        for teacher, head in zip(names, heads, strict=True)
    ]
    return markdown(["teacher", *names], rows)


def heat_map(runs: list[dict[str, Any]], names: list[str]) -> Figure:
    """Draws the content of `table` as a heat map.

    Args:
      runs: See `table`.
      names: See `table`.
    """
    cells, teachers = _by_cell(runs), _by_teacher(runs)
    means = np.array([[_mean(cells.get((teacher, student), ())) for student in names] for teacher in names])
    figure = Figure(figsize=(1.5 + 1.1 * len(names), 1.2 + 0.9 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, vmin=min(90.0, np.nanmin(means)), vmax=100.0, cmap="viridis")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), [f"{name}\n{_mean(teachers.get(name, ())):.1f} %" for name in names])
    axes.set_xlabel("student")
    axes.set_ylabel("teacher, and its accuracy")
    middle = sum(image.get_clim()) / 2
    for (row, column), mean in np.ndenumerate(means):
        if values := cells.get((names[row], names[column])):
            text, color = spread(values).replace(" ", "\n", 1), "white" if mean < middle else "black"
            axes.text(column, row, text, ha="center", va="center", color=color)
    figure.colorbar(image, label="student's test accuracy, %")
    return figure


def bars(runs: list[dict[str, Any]], names: list[str]) -> Figure:
    """Draws the content of `table` as bars with standard deviations, one group for each teacher.

    A dashed line is the teacher's own accuracy.

    Args:
      runs: See `table`.
      names: See `table`.
    """
    cells, teachers = _by_cell(runs), _by_teacher(runs)
    figure = Figure(figsize=(1.6 + 1.6 * len(names), 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for place, student in enumerate(names):
        values = [cells.get((teacher, student), ()) for teacher in names]
        deviations = list(map(deviation, values))
        at = np.arange(len(names)) + (place - (len(names) - 1) / 2) * width
        axes.bar(at, list(map(_mean, values)), width, yerr=deviations, capsize=2, color=COLORS(place), label=student)
    for row, teacher in enumerate(names):
        axes.hlines(_mean(teachers.get(teacher, ())), row - 0.42, row + 0.42, colors="black", linestyles="--")
    known = [value for values in (*cells.values(), *teachers.values()) for value in values]
    axes.set_ylim(max(0.0, min(known) - 5), min(100.0, max(known) + 1))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("teacher (dashed: its own accuracy)")
    axes.set_ylabel("test accuracy, %")
    figure.legend(title="student", loc="outside right upper", frameon=False)
    return figure


def _by_cell(runs: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """The students' accuracies in percent, by teacher and student."""
    cells = defaultdict(list)
    for run in map(run_figures, runs):
        teacher, student = run.variant.split("-")[:2]
        cells[teacher, student].append(percent(run.student_accuracy))
    return dict(cells)


def _by_teacher(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The teachers' accuracies in percent, by name: one value for each seed."""
    accuracies: dict[str, dict[int, float]] = defaultdict(dict)
    for run in map(run_figures, runs):
        accuracies[run.variant.split("-")[0]][run.seed] = percent(run.teacher_accuracy)
    return {name: list(values.values()) for name, values in accuracies.items()}


def _mean(values: Sequence[float]) -> float:
    """The mean. NaN if there are no values."""
    return statistics.mean(values) if values else float("nan")
