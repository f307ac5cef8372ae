"""The evaluation of a run on the real test set."""

from pathlib import Path
from typing import Any

from cake_jax.data import Dataset
from cake_jax.evaluation import Answers, answers_to, judge
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
    answers = logits = None
    if teacher is not None:
        of_teacher = answers_to(teacher, None, x, y)
        figures["teacher"], logits = judge(of_teacher), of_teacher.student
    if student is not None:
        answers = answers_to(student, None, x, y)._replace(teacher=logits)
        figures["student"] = judge(answers)
    figures["rounds"] = [
        {"round": number, **judge(answers_to(model, None, x, y)._replace(teacher=logits))}
        for number, model in kept_students(rounds).items()
    ]
    return figures, answers
