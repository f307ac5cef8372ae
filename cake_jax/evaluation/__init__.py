"""Evaluation of a student on real inputs. A new evaluator is one file and one line of `EVALUATORS`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cake_jax.evaluation.accuracy import accuracy
from cake_jax.evaluation.evaluator import Answers, Evaluator
from cake_jax.evaluation.fidelity import fidelity
from cake_jax.evaluation.grid import grid, grid_agreement
from cake_jax.evaluation.starts import starts_agreement
from cake_jax.teachers import as_queryable
from cake_jax.types import Array, Queryable

EVALUATORS: dict[str, Evaluator] = {"accuracy": accuracy, "fidelity": fidelity}


def evaluate(
    student: Queryable,
    teacher: Queryable | Callable[[jax.Array], jax.Array] | None,
    x: Array,
    y: np.ndarray | None,
) -> dict[str, Any]:
    """Evaluates a student with all of `EVALUATORS`.

    Args:
      student: The model to evaluate.
      teacher: The model that the student mimics: a `Teacher`, a differentiable function, or a `BlackBox`, whose queries
        are charged. None if there is no teacher.
      x: Inputs, `[N, *shape]`, normalised.
      y: Classes, `[N]` int. None if unknown.

    Returns:
      The values of all evaluators by name. The built-in evaluators are `accuracy` and `fidelity`.
    """
    teacher = None if teacher is None else as_queryable(teacher, student.spec)
    student_logits = student.predict(x)
    teacher_logits = None if teacher is None else teacher.predict(x)
    answers = Answers(x, y, student.spec.num_classes, student_logits, teacher_logits)
    return {name: value for evaluator in EVALUATORS.values() for name, value in evaluator(answers).items()}


__all__ = ["EVALUATORS", "Answers", "Evaluator", "evaluate", "grid", "grid_agreement", "starts_agreement"]
