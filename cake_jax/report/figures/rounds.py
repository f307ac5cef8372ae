"""Curves of the guide student over the rounds."""

from typing import Any

from matplotlib.figure import Figure

from cake_jax.report.drawing import Drawing
from cake_jax.report.figures.style import COLORS
from cake_jax.report.record import Record


def drawing(record: Record) -> Drawing | None:
    """Draws the curves of a run. None if no guide student was kept."""
    rounds = record.results.get("rounds")
    if not rounds:
        return None
    caption = (
        "The guide student, which the method trains while it makes samples, on real test data after each round. The "
        "dashed lines are the final student."
    )
    return Drawing("How the guide student grew", caption, rounds_curves(rounds, record.results["student"]))


def rounds_curves(rounds: list[dict[str, Any]], final: dict[str, Any]) -> Figure:
    """Draws test accuracy and agreement of the guide student over the rounds, and of the final student.

    Args:
      rounds: `rounds` of `results.json`.
      final: `student` of `results.json`.
    """
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for color, name in enumerate(("test_accuracy", "test_agreement")):
        if rounds[0][name] is not None:
            label = name.removeprefix("test_")
            axes.plot([row["round"] for row in rounds], [row[name] for row in rounds], marker=".", label=label)
            if final[name] is not None:
                axes.axhline(final[name], color=COLORS(color), linestyle="--", label=f"{label}, final student")
    axes.set(xlabel="rounds", ylabel="share of the test set", ylim=(None, 1.0))
    axes.legend(frameon=False)
    return figure
