"""A grid of synthetic images."""

import numpy as np
from matplotlib.figure import Figure

from cake_jax.report.record import Record
from cake_jax.teachers import Teacher
from cake_jax.types import SampleBatch


def figure(record: Record) -> Figure | None:
    """Draws the first mini-batch of a run. None unless the run has samples and a teacher of images."""
    store, teacher = record.samples, record.teacher
    if not store.count or teacher is None or not teacher.spec.is_image:
        return None
    return sample_grid(store.read(min(store.entries)), teacher)


def sample_grid(samples: SampleBatch, teacher: Teacher, *, columns: int = 10, rows: int = 5) -> Figure:
    """Draws the samples of the first sets, one set in a row. Titles are the teacher's labels and their probabilities.

    Args:
      samples: Images `[N, H, W, C]` of at least one set.
      teacher: The teacher, whose specification has the pixel units and the class names.
      columns: Highest number of samples in a row.
      rows: Highest number of rows.
    """
    spec = teacher.spec
    sets = np.unique(samples.set_index)[:rows]
    columns = min(columns, int(np.sum(samples.set_index == sets[0])))
    figure = Figure(figsize=(1.0 * columns, 1.2 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), columns, squeeze=False)
    logits = samples.logits - samples.logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, number in enumerate(sets):
        for column, sample in enumerate(np.flatnonzero(samples.set_index == number)[:columns]):
            image, label = spec.denormalize(samples.x[sample]), int(probabilities[sample].argmax())
            low = image.min() if spec.low is None else spec.low
            high = image.max() if spec.high is None else spec.high
            shown = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
            axes[row, column].imshow(
                shown[..., :3] if spec.shape[-1] >= 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1
            )
            name = spec.class_names[label] if spec.class_names else str(label)
            axes[row, column].set_title(f"{name} {probabilities[sample, label]:.2f}", fontsize=7)
            axes[row, column].axis("off")
    return figure
