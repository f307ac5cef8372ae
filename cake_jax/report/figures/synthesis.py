"""Curves of a method's diagnostics over the mini-batches."""

from matplotlib.figure import Figure

from cake_jax.report.record import Record
from cake_jax.stores.metrics import MetricsLog


def figure(record: Record) -> Figure | None:
    """Draws the curves of a run. None if no samples were made."""
    return synthesis_curves(record.log) if record.log.read("synthesis") else None


def synthesis_curves(log: MetricsLog) -> Figure:
    """Draws one panel for each diagnostic that the method logs. The logit gaps at start and end share a panel.

    Args:
      log: The metrics of the run.
    """
    rows = log.read("synthesis")
    batches = [row["step"] for row in rows]
    shown = [name for name in rows[0] if name not in ("step", "stage", "seconds", "logit_gap_start")]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for name, axis in zip(shown, axes, strict=False):
        if name == "logit_gap":
            axis.plot(batches, [row["logit_gap_start"] for row in rows], marker=".", label="start")
        axis.plot(batches, [row[name] for row in rows], marker=".", label="end")
        axis.set(xlabel="mini-batch", ylabel=name.replace("_", " "))
        if name == "step_size" and rows[0][name] > 0:
            axis.set_yscale("log")
        elif name == "logit_gap":
            axis.set(ylabel="logit gap within a set", ylim=(0, None))
            axis.legend(frameon=False)
        elif name.endswith("accuracy"):
            axis.set_ylim(-0.02, 1.02)
    for axis in axes[len(shown) :]:
        axis.axis("off")
    return figure
