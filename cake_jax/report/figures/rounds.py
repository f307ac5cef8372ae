"""Curve of the guide students over the rounds."""

from typing import Any

from matplotlib.figure import Figure

from cake_jax.report.figures.style import COLORS
from cake_jax.report.record import Record


def figure(record: Record) -> Figure | None:
    """The figure of a run, or None if no guide student was kept."""
    rounds = record.results.get("rounds")
    return rounds_curve(rounds, record.results["student"]) if rounds else None


def rounds_curve(rounds: list[dict[str, Any]], final: dict[str, Any]) -> Figure:
    """Accuracy on real test data, after the rounds, of the student that a method listens to.

    Args:
      rounds: Of `results.json`.
      final: Its `student`: the one that was trained anew on all samples.
    """
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for color, name in enumerate(("test_accuracy", "test_agreement")):
        if rounds[0][name] is not None:
            label = name.removeprefix("test_")
            axes.plot([r["round"] for r in rounds], [r[name] for r in rounds], marker=".", label=label)
            if final[name] is not None:
                axes.axhline(final[name], color=COLORS(color), linestyle="--", label=f"{label}, trained anew")
    axes.set(xlabel="rounds", ylabel="share of the test set", ylim=(None, 1.0))
    axes.legend(frameon=False)
    return figure
