"""Synthetic images."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from cake_jax.report.drawing import Drawing
from cake_jax.report.record import Record
from cake_jax.types import DataSpec, SampleBatch

_ROWS, _COLUMNS = 6, 10
_LONGEST_NAME = 11


def drawing(record: Record) -> Drawing | None:
    """Draws the beginnings of several mini-batches of a run. None unless the run has samples that are images."""
    store, spec = record.samples, record.spec
    if not store.count or spec is None or not spec.is_image:
        return None
    batches = sorted(store.entries)
    places = np.unique(np.linspace(0, len(batches) - 1, min(_ROWS, len(batches))).round().astype(int))
    shown = {batches[place]: store.read(batches[place]) for place in places}
    caption = (
        "Each row is the beginning of one mini-batch. At the left are its number and its step size. Above a sample are "
        "the class that the teacher gives it, and the teacher's probability. Samples need not look like real data: "
        "they only have to show where the teacher changes its answer."
    )
    return Drawing("What the samples look like", caption, sample_grid(shown, spec))


def sample_grid(batches: Mapping[int, SampleBatch], spec: DataSpec) -> Figure:
    """Draws the first samples of each mini-batch in a row of its own.

    Args:
      batches: Mini-batches of images `[N, H, W, C]` by number.
      spec: The specification, which has the pixel units and the class names.
    """
    columns = min(_COLUMNS, max(len(batch.x) for batch in batches.values()))
    figure = Figure(figsize=(0.9 * columns + 0.9, 1.15 * len(batches)), layout="constrained")
    axes = figure.subplots(len(batches), columns, squeeze=False)
    for row, (number, samples) in enumerate(batches.items()):
        probabilities = softmax(samples.logits, axis=1)
        step_size = f"\n{samples.step_size[0]:.2g}" if samples.step_size[0] else ""
        axes[row, 0].text(-0.1, 0.5, f"{number}{step_size}", transform=axes[row, 0].transAxes, ha="right", va="center")
        for column in range(min(columns, len(samples.x))):
            label = int(probabilities[column].argmax())
            _show(axes[row, column], samples.x[column], spec)
            axes[row, column].set_title(f"{_name(label, spec)} {probabilities[column, label]:.2f}", fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    return figure


def class_grid(runs: Mapping[str, tuple[SampleBatch, DataSpec]]) -> Figure:
    """Draws one row for each run, with one sample of each class: the first one that the teacher assigns to it.

    Args:
      runs: By name, the samples of a run, images `[N, H, W, C]`, and their specification.
    """
    columns = min(_COLUMNS, max(spec.num_classes for _, spec in runs.values()))
    figure = Figure(figsize=(0.9 * columns + 1.4, 1.15 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), columns, squeeze=False)
    for row, (name, (samples, spec)) in enumerate(runs.items()):
        axes[row, 0].text(-0.1, 0.5, name, transform=axes[row, 0].transAxes, ha="right", va="center")
        labels = samples.logits.argmax(axis=1)
        for label in range(min(columns, spec.num_classes)):
            places = np.flatnonzero(labels == label)
            if places.size:
                _show(axes[row, label], samples.x[places[0]], spec)
            axes[row, label].set_title(_name(label, spec), fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    return figure


def _show(axes: Axes, x: np.ndarray, spec: DataSpec) -> None:
    """Draws an image `[H, W, C]` in normalised units."""
    image = spec.denormalize(x)
    low = image.min() if spec.low is None else spec.low
    high = image.max() if spec.high is None else spec.high
    shown = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(shown[..., :3] if spec.shape[-1] >= 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)


def _name(label: int, spec: DataSpec) -> str:
    return spec.class_names[label][:_LONGEST_NAME] if spec.class_names else str(label)
