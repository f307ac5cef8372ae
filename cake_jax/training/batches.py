"""Functions that make the batch of a training step from stored examples, on the device."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax import Array

from cake_jax.augment import augment
from cake_jax.training.labels import Labels
from cake_jax.types import DataSpec

# (keys [B], x [B, *shape], labels of B examples, context) -> (x, labels), traced into the compiled step. A key depends
# on the epoch, the step and the example's place in the batch, not on the number of devices. `context` is the pytree of
# arrays that `trainer.epochs` received, for example a teacher that labels the batch. The function must be hashable, and
# equal functions must compare equal.
MakeBatch = Callable[[Array, Array, Labels, Any], tuple[Array, Labels]]


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Augments the images of a batch. Labels stay unchanged.

    Attributes:
      names: Names in `cake_jax.augment.NAMES`, applied in this order.
      spec: Specification of the inputs.
    """

    names: tuple[str, ...]
    spec: DataSpec

    def __call__(self, keys: Array, x: Array, labels: Labels, context: Any) -> tuple[Array, Labels]:
        """The augmented x `[B, *shape]` and the labels."""
        return augment(keys, x, self.names, self.spec), labels
