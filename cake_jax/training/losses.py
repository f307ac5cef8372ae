"""Losses of a model in training. Their formulas are in `cake_jax.losses`."""

import dataclasses
from collections.abc import Callable

from jax import Array

from cake_jax import checks, losses
from cake_jax.training.labels import Labels

# (a model's logits [B, K], labels of B examples) -> [B]. It must be hashable, and equal losses must compare equal.
Loss = Callable[[Array, Labels], Array]
DISTANCES = ("kl", "l1", "l2")


def classification_loss(logits: Array, labels: Labels) -> Array:
    """Cross entropy of logits `[B, K]` to the hard labels, in nats, `[B]`."""
    return losses.cross_entropy(logits, labels.classes)


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """A distance of the student's logits from the teacher's, and a cross entropy to the hard label.

    Attributes:
      temperature: Temperature tau of the soft labels, for `kl`.
      hard_weight: Weight of the cross entropy to the hard label. The distance has the rest.
      distance: `kl` for Hinton's loss (`losses.distillation`), `l1` or `l2` for `losses.logit_distance`.

    Raises:
      CakeError: The distance is unknown, the temperature is not above 0, or the weight is not in [0, 1].
    """

    temperature: float = 1.0
    hard_weight: float = 0.0
    distance: str = "kl"

    def __post_init__(self) -> None:
        checks.fields(self)
        checks.one_of("student.distance", self.distance, DISTANCES)
        checks.above_zero("student.temperature", self.temperature)
        checks.fraction("student.hard_weight", self.hard_weight, with_one=True)

    def __call__(self, logits: Array, labels: Labels) -> Array:
        """The loss `[B]` of student logits `[B, K]` and labels that have the teacher's logits."""
        if self.distance == "kl":
            return losses.distillation(
                logits, labels.logits, labels.classes, temperature=self.temperature, hard_weight=self.hard_weight
            )
        power = {"l1": 1, "l2": 2}[self.distance]
        loss = (1.0 - self.hard_weight) * losses.logit_distance(logits, labels.logits, power=power)
        if self.hard_weight:
            loss += self.hard_weight * classification_loss(logits, labels)
        return loss
