"""Functions that make the batch of a training step from stored examples, on the device."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax import Array

from cake_jax.augment import augment
from cake_jax.training.labels import Labels
from cake_jax.types import DataSpec

# (keys [B], x [B, *shape], labels of B examples, context) -> (x, labels), traced into the compiled step. A key belongs
# to an epoch, a step and an example's place in the batch, whatever the number of devices. `context` is the pytree of
# arrays that `trainer.epochs` was given: a teacher, for example, which labels the batch here. Hashable, and equal for
# equal functions.
MakeBatch = Callable[[Array, Array, Labels, Any], tuple[Array, Labels]]


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Augments the images of a batch. Labels stay as they are.

    Attributes:
      names: Names in `cake_jax.augment.NAMES`, applied in this order.
      spec: Specification of the inputs.
    """

    names: tuple[str, ...]
    spec: DataSpec

    def __call__(self, keys: Array, x: Array, labels: Labels, context: Any) -> tuple[Array, Labels]:
        """The augmented x `[B, *shape]` and the labels."""
        return augment(keys, x, self.names, self.spec), labels
