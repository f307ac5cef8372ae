"""The multi-layer perceptron."""

import flax.linen as nn
from jax import Array

from cake_jax.models.layers import Dense


class MLP(nn.Module):
    """A fully connected network with ReLU: 1 + `num_hidden` hidden layers and an output layer.

    The default is the network of the CAKE reference. On 2-dimensional data with 2 classes it has 942 parameters.

    Attributes:
      num_classes: Number of classes K.
      num_hidden: Number of hidden layers after the first.
      width: Units of each hidden layer.
      batch_norm: Whether batch norm precedes each ReLU.
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
