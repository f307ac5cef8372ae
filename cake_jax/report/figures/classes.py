"""How often the samples show each class."""

import numpy as np
from matplotlib.figure import Figure

from cake_jax.report.drawing import Drawing
from cake_jax.report.figures.style import COLORS, MOST_NAMED
from cake_jax.report.record import Record

# More samples are not counted, because they would all be read from the disk for one figure.
_MOST_COUNTED = 200_000


def drawing(record: Record) -> Drawing | None:
    """Draws the classes of a run's samples. None if there are no samples, or too many to be counted at once."""
    store = record.samples
    if not 0 < store.count <= _MOST_COUNTED:
        return None
    counts = np.sum([_counts(store.read(batch).logits) for batch in store.entries], axis=0)
    caption = (
        "The number of samples to which the teacher gives each class. If a class is rare, the student can hardly learn "
        "it."
    )
    return Drawing("What the samples show", caption, histogram(counts, record.class_names(len(counts))))


def _counts(logits: np.ndarray) -> np.ndarray:
    return np.bincount(logits.argmax(-1), minlength=logits.shape[-1])


def histogram(counts: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Draws the number of samples of each class.

    Args:
      counts: Numbers of samples, `[K]` int.
      names: Names of the K classes.
    """
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(counts)), counts, color=COLORS(0))
    axes.axhline(counts.mean(), linestyle="--", color=COLORS(7), label="all classes equal")
    axes.set(xlabel="class", ylabel="samples")
    if len(counts) <= MOST_NAMED:
        axes.set_xticks(range(len(counts)), names, rotation=90 if max(map(len, names)) > 6 else 0)
    axes.set_ylim(0, 1.3 * max(counts.max(), 1))
    axes.legend(frameon=False, loc="upper right")
    return figure
