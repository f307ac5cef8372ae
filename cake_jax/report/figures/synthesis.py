"""Curves of a method's diagnostics over the mini-batches."""

from typing import Any

from matplotlib.figure import Figure

from cake_jax.report.drawing import Drawing
from cake_jax.report.record import Record
from cake_jax.stores.metrics import MetricsLog

_START = "_start"
# Diagnostics whose names in the log do not speak for themselves.
_LABELS = {
    "cls": "classification loss",
    "contr": "contrastive loss",
    "prior": "weighted data priors",
    "entropy": "loss of unequal classes",
    "target_accuracy": "made for the class that\nthe teacher sees",
    "class_balance": "balance of the classes",
    "confidence": "teacher's confidence",
    "logit_gap": "differences of the teacher's\nanswers within a set",
    "disagreement": "student differs from teacher",
    "intended": "made for the class that\nthe guide student sees",
    "distance": "distance within a pair",
    "labels": "classes among the samples",
    "student_loss": "guide student's loss",
    "student_accuracy": "guide student's accuracy",
}
_SHARES = ("target_accuracy", "class_balance", "confidence", "intended", "student_accuracy")


def drawing(record: Record) -> Drawing | None:
    """Draws the curves of a run. None if no samples were made, or if no diagnostic changes."""
    rows = _rows(record.log)
    panels = _panels(rows)
    if not panels:
        return None
    caption = "Each point is one mini-batch of samples."
    if any(f"{name}{_START}" in rows[0] for name in panels):
        caption += " Where a panel has two lines, they are the values before the first and after the last step."
    if "step_size" in panels:
        caption += (
            " The step size falls from left to right, so later samples stay nearer to their starts. That is why a loss "
            "may rise, and why the teacher may see another class than the one that a sample was made for."
        )
    return Drawing("How the samples were made", caption, synthesis_curves(record.log))


def synthesis_curves(log: MetricsLog) -> Figure:
    """Draws one panel for each diagnostic that changes. A value at the start and one at the end share a panel.

    Args:
      log: The metrics of the run.
    """
    rows = _rows(log)
    names = _panels(rows)
    batches = [row["step"] for row in rows]
    lines = -(-len(names) // 2)
    figure = Figure(figsize=(7, 2.4 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False).ravel()
    for name, axis in zip(names, axes, strict=False):
        if f"{name}{_START}" in rows[0]:
            axis.plot(batches, [row[f"{name}{_START}"] for row in rows], marker=".", label="before the steps")
        axis.plot(batches, [row[name] for row in rows], marker=".", label="after the steps")
        axis.set(xlabel="mini-batch", ylabel=_LABELS.get(name, name.replace("_", " ")))
        if name == "step_size":
            axis.set_yscale("log")
        elif name in _SHARES:
            axis.set_ylim(-0.02, 1.02)
        elif len(axis.lines) == 2:
            axis.set_ylim(0, None)
        if len(axis.lines) == 2:
            axis.legend(frameon=False)
    for axis in axes[len(names) :]:
        axis.axis("off")
    return figure


def _rows(log: MetricsLog) -> list[dict[str, Any]]:
    """The lines of the mini-batches in order. Several processes write them as they are made."""
    return sorted(log.read("synthesis"), key=lambda row: row["step"])


def _panels(rows: list[dict[str, Any]]) -> list[str]:
    """The diagnostics that are not the same for all mini-batches, such as a loss whose weight is 0."""
    names = [
        name for name in (rows[0] if rows else ()) if name not in ("step", "stage", "seconds") and _START not in name
    ]

    def changes(name: str) -> bool:
        return len(rows) == 1 or any(len({row.get(one) for row in rows}) > 1 for one in (name, f"{name}{_START}"))

    return [name for name in names if changes(name)]
