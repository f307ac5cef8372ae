"""Curves of the training of teacher and student."""

from matplotlib.figure import Figure

from cake_jax.report.drawing import Drawing
from cake_jax.report.figures.style import COLORS
from cake_jax.report.record import Record
from cake_jax.stores.metrics import MetricsLog


def drawing(record: Record) -> Drawing | None:
    """Draws the curves of a run. None if nothing was trained."""
    log = record.log
    if not (log.read("teacher") or log.read("student")):
        return None
    caption = (
        "Left: the loss that the training lowers. Right: the share of answers that match the labels of the training. "
        "The teacher's labels are the true classes, the student's are the teacher's answers. Dashed lines are examples "
        "that were held out."
    )
    return Drawing("How teacher and student learned", caption, training_curves(log))


def training_curves(log: MetricsLog) -> Figure:
    """Draws loss and accuracy of teacher and student over the epochs. The student's accuracy is its agreement.

    Args:
      log: The metrics of the run.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for color, stage in enumerate(("teacher", "student")):
        rows = log.read(stage)
        if not rows:
            continue
        epochs = [row["epoch"] for row in rows]
        for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(epochs, [row[name] for row in rows], color=COLORS(color), label=stage)
            if rows[0][f"validation_{name}"] is not None:
                validation = [row[f"validation_{name}"] for row in rows]
                axes.plot(epochs, validation, color=COLORS(color), linestyle="--", label=f"{stage}, held out")
    loss.set(xlabel="epoch", ylabel="loss", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="matches its labels")
    accuracy.legend(frameon=False)
    return figure
