"""Losses of a model in training. Their formulas are in `cake_jax.losses`."""

import dataclasses
from collections.abc import Callable

from jax import Array

from cake_jax import checks, losses
from cake_jax.training.labels import Labels

# (a model's logits [B, K], labels of B examples) -> [B]. It must be hashable, and equal losses must compare equal.
Loss = Callable[[Array, Labels], Array]


def classification_loss(logits: Array, labels: Labels) -> Array:
    """Cross entropy of logits `[B, K]` to the hard labels, in nats, `[B]`."""
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
        """The loss in nats, `[B]`, of student logits `[B, K]` and labels that have the teacher's logits."""
        return losses.distillation(
            logits, labels.logits, labels.classes, temperature=self.temperature, hard_weight=self.hard_weight
        )
