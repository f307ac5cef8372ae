"""The figures of a run by name. A new figure is one file and one line of `FIGURES`."""

from collections.abc import Callable

from cake_jax.report.drawing import Drawing
from cake_jax.report.figures import boundaries, classes, confusion, rounds, samples, synthesis, training
from cake_jax.report.record import Record

# The figures of the report, in this order. Each function returns None if its figure does not suit the run.
FIGURES: dict[str, Callable[[Record], Drawing | None]] = {
    "boundaries": boundaries.drawing,
    "samples": samples.drawing,
    "confusion": confusion.drawing,
    "classes": classes.drawing,
    "training": training.drawing,
    "synthesis": synthesis.drawing,
    "rounds": rounds.drawing,
}

__all__ = ["FIGURES"]
