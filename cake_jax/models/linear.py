"""Linear classifiers."""

import flax.linen as nn
from jax import Array

from cake_jax.models.layers import Dense


class LogisticRegression(nn.Module):
    """One dense layer from the flattened input to the logits.

    Attributes:
      num_classes: Number of classes K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return Dense(self.num_classes)(x.reshape(x.shape[0], -1))
