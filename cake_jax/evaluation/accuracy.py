"""Accuracy of student and teacher on labelled inputs."""

from typing import Any

import numpy as np

from cake_jax.evaluation.evaluator import Answers


def accuracy(answers: Answers) -> dict[str, Any]:
    """The shares of the inputs that are classified correctly.

    Args:
      answers: The answers.

    Returns:
      `accuracy` of the student; `per_class_accuracy`, K values, None for a class without inputs; `teacher_accuracy`.
      Shares from 0 to 1. All are None if the classes are unknown, `teacher_accuracy` also without a teacher.
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
        "teacher_accuracy": None
        if answers.teacher is None
        else float(np.mean(answers.teacher.argmax(-1) == classes)),
    }
