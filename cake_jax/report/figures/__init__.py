"""The figures of a run by name. A new figure is one file and one line of `FIGURES`."""

from collections.abc import Callable

from matplotlib.figure import Figure

from cake_jax.report.figures import boundaries, rounds, samples, synthesis, training
from cake_jax.report.record import Record

# The figures of the report, in this order. Each function returns None if its figure does not suit the run.
FIGURES: dict[str, Callable[[Record], Figure | None]] = {
    "training": training.figure,
    "synthesis": synthesis.figure,
    "rounds": rounds.figure,
    "samples": samples.figure,
    "boundaries": boundaries.figure,
}

__all__ = ["FIGURES"]
