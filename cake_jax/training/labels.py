"""What a model learns from: labels, and the losses that take them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from cake_jax import checks, losses


class Labels(NamedTuple):
    """Labels of N examples, on the host or in a compiled program.

    Attributes:
      classes: Hard labels, `[N]` int.
      logits: The teacher's logits, `[N, K]`. None if the labels are classes alone.
    """

    classes: Any
    logits: Any = None


def from_logits(logits: np.ndarray) -> Labels:
    """Labels of the teacher's logits `[N, K]`: the hard label is the argmax."""
    return Labels(logits.argmax(axis=-1).astype(np.int32), logits)


# (a model's logits [B, K], labels of B examples) -> [B]. Hashable, and equal for equal losses.
Loss = Callable[[Array, Labels], Array]


def classification_loss(logits: Array, labels: Labels) -> Array:
    """Cross entropy of logits `[B, K]` to the classes, in nats, `[B]`."""
    return losses.cross_entropy(logits, labels.classes)


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """Hinton's loss; see `losses.distillation`.

    Attributes:
      temperature: Temperature tau of the soft labels.
      hard_weight: Weight of the cross entropy to the hard label.

    Raises:
      CakeError: The temperature is not above 0, or the weight is not in [0, 1].
    """

    temperature: float = 1.0
    hard_weight: float = 0.0

    def __post_init__(self) -> None:
        checks.above_zero("student.temperature", self.temperature)
        checks.fraction("student.hard_weight", self.hard_weight, with_one=True)

    def __call__(self, logits: Array, labels: Labels) -> Array:
        """Nats, `[B]`, of student logits `[B, K]` and labels with the teacher's logits."""
        return losses.distillation(
            logits, labels.logits, labels.classes, temperature=self.temperature, hard_weight=self.hard_weight
        )
