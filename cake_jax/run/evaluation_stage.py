"""The evaluation of a run on the real test set."""

from pathlib import Path
from typing import Any

from cake_jax.data import Dataset
from cake_jax.evaluation import evaluate
from cake_jax.run.synthesis_stage import kept_students
from cake_jax.teachers import Teacher
from cake_jax.types import Queryable


def evaluate_models(
    dataset: Dataset, teacher: Queryable | None, student: Teacher | None, rounds: Path
) -> dict[str, Any]:
    """Results on the real test set for the teacher, the student, and the guide students that were kept."""
    x, y = dataset.test_x, dataset.test_y
    figures: dict[str, Any] = {}
    if teacher is not None:
        figures["teacher"] = evaluate(teacher, None, x, y)
    if student is not None:
        figures["student"] = evaluate(student, teacher, x, y)
    figures["rounds"] = [
        {"round": number, **evaluate(model, teacher, x, y)} for number, model in kept_students(rounds).items()
    ]
    return figures
