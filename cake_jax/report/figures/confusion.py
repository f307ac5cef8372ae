"""Which classes the student confuses."""

import numpy as np
from matplotlib.figure import Figure

from cake_jax.report.drawing import Drawing
from cake_jax.report.figures.style import MOST_NAMED
from cake_jax.report.record import Record


def drawing(record: Record) -> Drawing | None:
    """Draws the confusion of a run. None if student or teacher were not evaluated on real data."""
    answers = record.answers
    if answers is None or answers.teacher is None:
        return None
    names = record.class_names(answers.num_classes)
    figure = confusion(answers.teacher.argmax(-1), answers.student.argmax(-1), names)
    caption = (
        "Real test examples, in percent of each row. A row has the examples to which the teacher gives one class, and "
        "a column those to which the student gives one. A perfect copy has 100 on the diagonal."
    )
    return Drawing("Where student and teacher differ", caption, figure)


def confusion(teacher: np.ndarray, student: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Draws the student's classes as shares of each class of the teacher.

    Args:
      teacher: The teacher's classes, `[N]` int.
      student: The student's classes, `[N]` int.
      names: Names of the K classes.
    """
    count = len(names)
    counts = np.zeros((count, count))
    np.add.at(counts, (teacher, student), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.0 + (0.42 * count if count <= MOST_NAMED else 4.0)
    figure = Figure(figsize=(size, size - 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="student", ylabel="teacher")
    if count <= MOST_NAMED:
        axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(count), names)
        for (row, column), share in np.ndenumerate(shares):
            if share:
                color = "white" if share > 50 else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=color, fontsize=8)
    return figure
