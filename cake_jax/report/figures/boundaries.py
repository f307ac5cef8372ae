"""Decision regions of teacher and students with 2-dimensional inputs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from cake_jax.data import Dataset
from cake_jax.evaluation.grid import LIMIT, grid
from cake_jax.report.drawing import Drawing
from cake_jax.report.figures.style import COLORS
from cake_jax.report.record import Record
from cake_jax.teachers import Teacher
from cake_jax.types import SampleBatch

# Lines of more sets would cover the picture.
_LINKED = 60


def drawing(record: Record) -> Drawing | None:
    """Draws the decision regions of a run. None unless the run has samples and a teacher of 2-dimensional inputs."""
    store, teacher = record.samples, record.teacher
    if not store.count or teacher is None or teacher.spec.shape != (2,):
        return None
    caption = (
        "The colour of the ground is the class that a model gives to a point. Circles are real test data, which the "
        "student never saw. Triangles are samples, at most 1,000. Lines connect the samples of the first sets."
    )
    figure = decision_boundaries(teacher, {"student": (record.student, store.select())}, record.dataset)
    return Drawing("How teacher and student divide the plane", caption, figure)


def decision_boundaries(
    teacher: Teacher,
    students: Mapping[str, tuple[Teacher | None, SampleBatch]],
    dataset: Dataset | None,
    *,
    columns: int = 4,
) -> Figure:
    """Draws the decision regions in [-2, 2]^2, one panel for the teacher and one for each student.

    Circles are real test data, and triangles are samples.

    Args:
      teacher: The teacher.
      students: Students by title, each with the samples on which it was trained. A student that is None has no panel.
        If there is only one title, the teacher's panel shows its samples too.
      dataset: The real data, or None.
      columns: Highest number of panels in a row.
    """
    only = next(iter(students.values()))[1] if len(students) == 1 else None
    panels = [("teacher", teacher, only)]
    panels += [(title, student, samples) for title, (student, samples) in students.items() if student is not None]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 4.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    points, shape = grid()
    regions = [model.predict(points).argmax(axis=1) for _, model, _ in panels]
    for axis, (title, model, samples), region in zip(axes, panels, regions, strict=False):
        extent = (-LIMIT, LIMIT, -LIMIT, LIMIT)
        colors = COLORS(np.arange(10))[:, :3] * 0.45 + 0.55
        axis.imshow(colors[region.reshape(shape) % 10], extent=extent, origin="lower", interpolation="nearest")
        if dataset is not None:
            points_x, points_y = dataset.test_x[:300], dataset.test_y[:300]
            axis.scatter(*points_x.T, c=COLORS(points_y % 10), s=12, edgecolors="white", linewidths=0.4, label="data")
        if samples is not None:
            x, label = samples.x[:1000], samples.logits[:1000].argmax(axis=1)
            for number in np.unique(samples.set_index)[:_LINKED]:
                axis.plot(*samples.x[samples.set_index == number].T, color="black", linewidth=0.4, alpha=0.5)
            axis.scatter(
                *x.T, c=COLORS(label % 10), s=14, marker="^", edgecolors="black", linewidths=0.4, label="samples"
            )
        if model is not teacher:
            title += f"\nagrees on {np.mean(region == regions[0]):.1%} of the square"
        axis.set(title=title, xlim=extent[:2], ylim=extent[2:], aspect="equal")
    for axis in axes[len(panels) :]:
        axis.axis("off")
    axes[len(panels) - 1].legend(frameon=True, loc="upper right", fontsize=8)
    return figure
