"""Accuracy of a model, and its fidelity to the teacher."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import losses, parallel
from cake_jax.teachers import BlackBox, Queryable, as_teacher


def predict(model: Queryable, x: Array | np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    """Logits of many inputs, spread over the devices; the last partial batch counts.

    Args:
      model: A teacher or student; or a black box, which gets all of x at once and cuts it to its own requests.
      x: `[N, *shape]`, normalised.
      batch_size: Inputs a device takes at once.

    Returns:
      `[N, K]` float32.
    """
    if isinstance(model, BlackBox):
        return model(x)
    index, _ = parallel.deal(len(x), min(batch_size, len(x)))
    run = _forward()
    parts = [run(model, np.asarray(x)[index[:, i]]) for i in range(index.shape[1])]
    return parallel.gather(np.stack([np.asarray(part) for part in parts], axis=1), len(x)).astype(np.float32)


def evaluate(
    student: Queryable,
    teacher: Queryable | Callable[[Array], Array] | None,
    x: Array | np.ndarray,
    y: np.ndarray | None,
) -> dict[str, Any]:
    """How good a student is, and how true to its teacher.

    Args:
      student: The model to judge.
      teacher: The model it mimics, or None.
      x: Inputs, `[N, *shape]`, normalised.
      y: Labels, `[N]` int, or None.

    Returns:
      `accuracy`, `per_class_accuracy` (K values, None for a class without examples), `teacher_accuracy`: shares of the
      inputs, 0 to 1, None without labels. `agreement`: share of the inputs with the same argmax. `kl`: mean
      KL(teacher || student) in nats at temperature 1. The last three are None without a teacher.
    """
    student_logits = predict(student, x)
    result: dict[str, Any] = dict.fromkeys(
        ("accuracy", "per_class_accuracy", "teacher_accuracy", "agreement", "kl"), None
    )
    if y is not None:
        correct = student_logits.argmax(-1) == y
        result["accuracy"] = float(correct.mean())
        result["per_class_accuracy"] = [
            float(correct[y == k].mean()) if (y == k).any() else None for k in range(student.spec.num_classes)
        ]
    if teacher is not None:
        teacher_logits = predict(teacher if isinstance(teacher, BlackBox) else as_teacher(teacher, student.spec), x)
        result["agreement"] = float(np.mean(student_logits.argmax(-1) == teacher_logits.argmax(-1)))
        result["kl"] = float(losses.kl_divergence(jnp.asarray(student_logits), jnp.asarray(teacher_logits)).mean())
        if y is not None:
            result["teacher_accuracy"] = float(np.mean(teacher_logits.argmax(-1) == y))
    return result


@functools.cache
def _forward() -> Callable:
    return parallel.map_devices(lambda model, x: model(x), in_axes=(None, 0))
