"""Evaluation of a student on real inputs. A new evaluator is one file and one line of `EVALUATORS`."""

from collections.abc import Callable
from typing import Any

import jax

from cake_jax import checks
from cake_jax.arrays import as_classes, as_inputs
from cake_jax.evaluation.accuracy import accuracy
from cake_jax.evaluation.evaluator import Answers, Evaluator
from cake_jax.evaluation.fidelity import fidelity
from cake_jax.evaluation.grid import grid, grid_agreement
from cake_jax.evaluation.starts import starts_agreement
from cake_jax.teachers import as_queryable
from cake_jax.types import CakeError, DataSpec, Queryable

EVALUATORS: dict[str, Evaluator] = {"accuracy": accuracy, "fidelity": fidelity}


def evaluate(
    student: Queryable,
    teacher: Queryable | Callable[[jax.Array], jax.Array] | None,
    x: Any,
    y: Any,
) -> dict[str, Any]:
    """Evaluates a student with all of `EVALUATORS`.

    Args:
      student: The model to evaluate.
      teacher: The model that the student mimics: a `Teacher`, a differentiable function, or a `BlackBox`, whose queries
        are charged. None if there is no teacher.
      x: Inputs, `[N, *shape]`, normalised.
      y: Classes, `[N]` int, `[N, 1]` or one-hot. None if unknown.

    Returns:
      The values of all evaluators by name. The built-in evaluators are `accuracy` and `fidelity`.

    Raises:
      CakeError: Inputs or classes do not fit the student's specification.
    """
    return judge(answers_to(student, teacher, x, y))


def answers_to(
    student: Queryable, teacher: Queryable | Callable[[jax.Array], jax.Array] | None, x: Any, y: Any
) -> Answers:
    """The answers of student and teacher on inputs. Args and errors as in `evaluate`."""
    if not isinstance(getattr(student, "spec", None), DataSpec):
        raise CakeError(f"student: {checks.shown(student)} is not a Teacher or a BlackBox")
    x = as_inputs(x, student.spec)
    y = None if y is None else as_classes(y, student.spec.num_classes, len(x))
    teacher = None if teacher is None else as_queryable(teacher, student.spec)
    student_logits = student.predict(x)
    teacher_logits = None if teacher is None else teacher.predict(x)
    return Answers(x, y, student.spec.num_classes, student_logits, teacher_logits)


def judge(answers: Answers) -> dict[str, Any]:
    """The values of all evaluators by name."""
    return {name: value for evaluator in EVALUATORS.values() for name, value in evaluator(answers).items()}


__all__ = [
    "EVALUATORS",
    "Answers",
    "Evaluator",
    "answers_to",
    "evaluate",
    "grid",
    "grid_agreement",
    "judge",
    "starts_agreement",
]
