"""The evaluation of a run on the real test set."""

from pathlib import Path
from typing import Any

from cake_jax.data import Dataset
from cake_jax.evaluation import Answers, answers_to, evaluate, judge
from cake_jax.run.synthesis_stage import kept_students
from cake_jax.teachers import Teacher
from cake_jax.types import Queryable


def evaluate_models(
    dataset: Dataset, teacher: Queryable | None, student: Teacher | None, rounds: Path
) -> tuple[dict[str, Any], Answers | None]:
    """Evaluates the teacher, the student, and the guide students that were kept on the real test set.

    Returns:
      The results, and the answers of student and teacher. The answers are None without a student.
    """
    x, y = dataset.test_x, dataset.test_y
    figures: dict[str, Any] = {}
    answers = None
    if teacher is not None:
        figures["teacher"] = evaluate(teacher, None, x, y)
    if student is not None:
        answers = answers_to(student, teacher, x, y)
        figures["student"] = judge(answers)
    figures["rounds"] = [
        {"round": number, **evaluate(model, teacher, x, y)} for number, model in kept_students(rounds).items()
    ]
    return figures, answers
