"""Figures of a run by name. A figure is one file and one line of `FIGURES`."""

from collections.abc import Callable

from matplotlib.figure import Figure

from cake_jax.report.figures import boundaries, rounds, samples, synthesis, training
from cake_jax.report.record import Record

# Each returns None for a run that it does not suit. They appear in the report in this order.
FIGURES: dict[str, Callable[[Record], Figure | None]] = {
    "training": training.figure,
    "synthesis": synthesis.figure,
    "rounds": rounds.figure,
    "samples": samples.figure,
    "boundaries": boundaries.figure,
}
