"""Agreement of two models on a grid of 2-dimensional inputs. It needs no data."""

import numpy as np

from cake_jax.types import Queryable

LIMIT, SIZE = 2.0, 200


def grid() -> tuple[np.ndarray, tuple[int, int]]:
    """The points of a grid over [-2, 2]^2, `[40000, 2]` float32, and the grid's shape, (200, 200)."""
    axis = np.linspace(-LIMIT, LIMIT, SIZE, dtype=np.float32)
    columns, rows = np.meshgrid(axis, axis)
    return np.stack([columns.ravel(), rows.ravel()], axis=-1), (SIZE, SIZE)


def grid_agreement(student: Queryable | None, teacher: Queryable | None) -> float | None:
    """The share of the points of `grid` for which both models have the same argmax.

    Args:
      student: The student, or None.
      teacher: The teacher, or None. Its queries must be free.

    Returns:
      The agreement, from 0 to 1. None if a model is missing or inputs are not 2-dimensional.
    """
    if student is None or teacher is None or student.spec.shape != (2,):
        return None
    points, _ = grid()
    return float(np.mean(student.predict(points).argmax(axis=1) == teacher.predict(points).argmax(axis=1)))
