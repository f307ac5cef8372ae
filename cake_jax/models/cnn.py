"""The plain convolutional networks of the CAKE reference."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense


class CNN(nn.Module):
    """Four convolutions without padding (3, 4, 3 and 3 wide), 2 x 2 pools after the last three, one dense layer.

    107,658 parameters on 28 x 28 x 1 images of 10 classes; 6,954 with the features (8, 16, 16, 16) of the tiny network
    and 723,338 with those of the big one, (64, 128, 256, 128).

    Attributes:
      num_classes: K.
      features: Channels of the four convolutions.
    """

    num_classes: int
    features: tuple[int, int, int, int] = (32, 64, 64, 64)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`, H and W at least 28."""
        for layer, (features, size) in enumerate(zip(self.features, (3, 4, 3, 3), strict=True)):
            x = nn.relu(Conv(features, size, pool=layer > 0)(x))
        return Dense(self.num_classes)(x.reshape(x.shape[0], -1))


class AdaptivePoolCNN(nn.Module):
    """Three convolutions without padding (3, 4 and 3 wide), the first two with 2 x 2 pools, a mean over the image.

    70,730 parameters on images of one channel and 10 classes, whatever their size.

    Attributes:
      num_classes: K.
      features: Channels of the three convolutions.
    """

    num_classes: int
    features: tuple[int, int, int] = (32, 64, 64)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`, H and W at least 20."""
        for layer, (features, size) in enumerate(zip(self.features, (3, 4, 3), strict=True)):
            x = nn.relu(Conv(features, size, pool=layer < 2)(x))
        return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))
