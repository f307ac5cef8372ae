"""Functions that make the batch of a training step from stored examples, on the device."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from jax import Array

from cake_jax.augment import augment
from cake_jax.training.labels import Labels
from cake_jax.types import DataSpec

# (keys [B], x [B, *shape], labels of B examples, context) -> (x, labels), traced into the compiled step. A key depends
# on the epoch, the step and the example's place in the batch, not on the number of devices. `context` is the pytree of
# arrays that `trainer.epochs` received, for example a teacher that labels the batch. The function must be hashable, and
# equal functions must compare equal. A `make_batch` may learn: see `Learning`.
MakeBatch = Callable[[Array, Array, Labels, Any], tuple[Array, Labels]]


class Learning(Protocol):
    """A `MakeBatch` whose state learns from step to step. Its context is the pair of the context and this state."""

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn. Otherwise it is a plain `MakeBatch`."""
        ...

    def init(self, key: Array) -> Any:
        """The state before the first step, a pytree of arrays."""
        ...

    def learn(self, keys: Array, state: Any, step: Array, student: Any, context: Any) -> Any:
        """The state after a step, the same on all devices.

        Args:
          keys: The keys of the device's examples, `[B]`.
          state: The state.
          step: Number of the step in the epoch.
          student: The model in evaluation mode, after its step: `x [n, *shape] -> logits [n, K]`.
          context: The context of the training.
        """
        ...


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
