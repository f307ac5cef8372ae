"""LeNet-5, and LeNet-5-half."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max-pooling, in the form that data-free distillation papers use.

    Images smaller than 32 x 32 are padded to that size with zeros, the mean in normalised units. Parameters on
    28 x 28 x 1 images of 10 classes: 61,706, and 15,738 with the features of LeNet-5-half, (3, 8, 60, 42).

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the three 5 x 5 convolutions, and units of the first dense layer.

    Source: LeCun et al. 1998. LeNet-5-half is the student of DAFL (arXiv 1904.01186).
    """

    num_classes: int
    features: tuple[int, int, int, int] = (6, 16, 120, 84)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        first, second, third, dense = self.features
        height, width = (max(32 - size, 0) for size in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), (height // 2, -(-height // 2)), (width // 2, -(-width // 2)), (0, 0)))
        x = nn.relu(Conv(first, 5, pool=True)(x))
        x = nn.relu(Conv(second, 5, pool=True)(x))
        x = nn.relu(Conv(third, 5)(x))
        x = nn.relu(Dense(dense)(x.reshape(x.shape[0], -1)))
        return Dense(self.num_classes)(x)
