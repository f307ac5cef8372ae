"""Accuracies for each pair of teacher and student architectures: a table and a heat map."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cake_jax.report.tables import markdown, percent, run_figures


def table(runs: list[dict[str, Any]], names: list[str]) -> str:
    """The students' test accuracies in percent, in Markdown: one row for each teacher, one column for each student.

    The first cell of a row has the teacher's own accuracy. A dash stands for a run that is not done yet.

    Args:
      runs: Contents of `results.json` of configs whose variant is `<teacher>-<student>`.
      names: The names of the architectures, in order.
    """
    teachers = _teacher_accuracies(runs)
    heads = [f"{name}, {teachers[name]:.1f}" if name in teachers else name for name in names]
    cells = [["-" if np.isnan(value) else f"{value:.1f}" for value in row] for row in _accuracies(runs, names)]
    return markdown(["teacher", *names], [[head, *row] for head, row in zip(heads, cells, strict=True)])


def heat_map(runs: list[dict[str, Any]], names: list[str]) -> Figure:
    """Draws the content of `table` as a heat map.

    Args:
      runs: See `table`.
      names: See `table`.
    """
    accuracies, teachers = _accuracies(runs, names), _teacher_accuracies(runs)
    figure = Figure(figsize=(1.5 + 1.1 * len(names), 1.2 + 0.9 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(accuracies, vmin=min(90.0, np.nanmin(accuracies)), vmax=100.0, cmap="viridis")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), [f"{name}\n{teachers[name]:.1f} %" for name in names])
    axes.set_xlabel("student")
    axes.set_ylabel("teacher, and its accuracy")
    middle = sum(image.get_clim()) / 2
    for (row, column), value in np.ndenumerate(accuracies):
        color = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
    figure.colorbar(image, label="student's test accuracy, %")
    return figure


def _accuracies(runs: list[dict[str, Any]], names: list[str]) -> np.ndarray:
    """The students' accuracies in percent, one row for each teacher. NaN for a run that is not done yet."""
    accuracies = np.full((len(names), len(names)), np.nan)
    for run in map(run_figures, runs):
        teacher, student = run.variant.split("-")[:2]
        accuracies[names.index(teacher), names.index(student)] = percent(run.student_accuracy)
    return accuracies


def _teacher_accuracies(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The teachers' accuracies in percent, by name."""
    return {run.variant.split("-")[0]: percent(run.teacher_accuracy) for run in map(run_figures, runs)}
