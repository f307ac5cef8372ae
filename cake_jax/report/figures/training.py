"""Curves of the training of teacher and student."""

from matplotlib.figure import Figure

from cake_jax.report.figures.style import COLORS
from cake_jax.report.record import Record
from cake_jax.stores.metrics import MetricsLog


def figure(record: Record) -> Figure | None:
    """Draws the curves of a run. None if nothing was trained."""
    log = record.log
    return training_curves(log) if log.read("teacher") or log.read("student") else None


def training_curves(log: MetricsLog) -> Figure:
    """Draws loss and accuracy of teacher and student over the epochs. The student's accuracy is its agreement.

    Args:
      log: The metrics of the run.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for color, stage in enumerate(("teacher", "student")):
        rows = log.read(stage)
        if not rows:
            continue
        epochs = [row["epoch"] for row in rows]
        for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(epochs, [row[name] for row in rows], color=COLORS(color), label=f"{stage}, training")
            if rows[0][f"validation_{name}"] is not None:
                validation = [row[f"validation_{name}"] for row in rows]
                axes.plot(epochs, validation, color=COLORS(color), linestyle="--", label=f"{stage}, validation")
    loss.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="accuracy on its own labels")
    accuracy.legend(frameon=False)
    return figure
