"""The plain convolutional networks of the CAKE reference."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense


class CNN(nn.Module):
    """Four convolutions without padding, 2 x 2 max-pools after the last three, and one dense layer.

    The kernels are 3, 4, 3 and 3 pixels wide. Parameters on 28 x 28 x 1 images of 10 classes: 107,658 by default, 6,954
    with the features of `cnn_tiny`, (8, 16, 16, 16), and 723,338 with those of `cnn_big`, (64, 128, 256, 128).

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the four convolutions.
    """

    num_classes: int
    features: tuple[int, int, int, int] = (32, 64, 64, 64)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`. H and W are at least 28."""
        for layer, (features, size) in enumerate(zip(self.features, (3, 4, 3, 3), strict=True)):
            x = nn.relu(Conv(features, size, pool=layer > 0)(x))
        return Dense(self.num_classes)(x.reshape(x.shape[0], -1))


class AdaptivePoolCNN(nn.Module):
    """Three convolutions without padding, 2 x 2 max-pools after the first two, a mean over the image, one dense layer.

    The kernels are 3, 4 and 3 pixels wide. On images of any size with one channel and 10 classes, the network has
    70,730 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the three convolutions.
    """

    num_classes: int
    features: tuple[int, int, int] = (32, 64, 64)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`. H and W are at least 20."""
        for layer, (features, size) in enumerate(zip(self.features, (3, 4, 3), strict=True)):
            x = nn.relu(Conv(features, size, pool=layer < 2)(x))
        return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))
