"""Accuracy of student and teacher on labelled inputs."""

from typing import Any

import numpy as np

from cake_jax.evaluation.evaluator import Answers


def accuracy(answers: Answers) -> dict[str, Any]:
    """Measures the shares of the inputs that student and teacher classify correctly.

    Args:
      answers: The answers of student and teacher.

    Returns:
      `accuracy`: the student's share, from 0 to 1.
      `per_class_accuracy`: the student's share for each of K classes. None for a class without inputs.
      `teacher_accuracy`: the teacher's share. None without a teacher.
      All three are None if the classes are unknown.
    """
    classes = answers.classes
    if classes is None:
        return {"accuracy": None, "per_class_accuracy": None, "teacher_accuracy": None}
    correct = answers.student.argmax(-1) == classes
    return {
        "accuracy": float(correct.mean()),
        "per_class_accuracy": [
            float(correct[classes == k].mean()) if (classes == k).any() else None for k in range(answers.num_classes)
        ],
        "teacher_accuracy": None if answers.teacher is None else float(np.mean(answers.teacher.argmax(-1) == classes)),
    }
