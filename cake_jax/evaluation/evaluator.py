"""The signature of an evaluator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cake_jax.types import Array


class Answers(NamedTuple):
    """N inputs, and the answers of student and teacher.

    Attributes:
      x: Inputs, `[N, *shape]`, normalised.
      classes: Classes, `[N]` int. None if unknown.
      num_classes: Number of classes K.
      student: The student's logits, `[N, K]` float32.
      teacher: The teacher's logits, `[N, K]` float32. None without a teacher.
    """

    x: Array
    classes: np.ndarray | None
    num_classes: int
    student: np.ndarray
    teacher: np.ndarray | None


# It returns values by name, JSON-ready. A value that cannot be computed is None.
Evaluator = Callable[[Answers], dict[str, Any]]
