"""Multi-layer perceptron."""

import flax.linen as nn
from jax import Array

from cake_jax.models.layers import Dense


class MLP(nn.Module):
    """Fully connected network with ReLU: one input layer, `num_hidden` more hidden layers, and the output layer.

    942 parameters on 2-dimensional data with 2 classes at the defaults, as the CAKE reference has it.

    Attributes:
      num_classes: K.
      num_hidden: Hidden layers after the first.
      width: Units of each hidden layer.
      batch_norm: Whether batch norm stands before each ReLU.
    """

    num_classes: int
    num_hidden: int = 2
    width: int = 20
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        x = x.reshape(x.shape[0], -1)
        for _ in range(1 + self.num_hidden):
            x = Dense(self.width)(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.relu(x)
        return Dense(self.num_classes)(x)
