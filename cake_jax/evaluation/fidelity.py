"""Fidelity: how closely a student follows its teacher."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from cake_jax import losses
from cake_jax.evaluation.evaluator import Answers


def fidelity(answers: Answers) -> dict[str, Any]:
    """Measures agreement and divergence of student and teacher.

    Args:
      answers: The answers of student and teacher.

    Returns:
      `agreement`: the share of the inputs for which both have the same argmax, from 0 to 1.
      `kl`: mean KL(teacher || student) at temperature 1, in nats.
      Both are None without a teacher.
    """
    student, teacher = answers.student, answers.teacher
    if teacher is None:
        return {"agreement": None, "kl": None}
    return {
        "agreement": float(np.mean(student.argmax(-1) == teacher.argmax(-1))),
        "kl": float(losses.kl_divergence(jnp.asarray(student), jnp.asarray(teacher)).mean()),
    }
