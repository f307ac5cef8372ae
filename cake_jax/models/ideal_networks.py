"""The small networks of IDEAL's experiments (arXiv 2205.11158), as in its released code."""

import flax.linen as nn
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.operations import max_pool


class AlexNet(nn.Module):
    """Five 3 x 3 convolutions that keep the size, max-pools after the first, second and last, two dense layers.

    A ReLU follows each pool. There is none between the third, fourth and fifth convolution, nor between the dense
    layers. On 28 x 28 x 1 images of 10 classes the network has 2,163,210 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the five convolutions, and units of the first dense layer.
    """

    num_classes: int
    features: tuple[int, int, int, int, int, int] = (32, 64, 128, 256, 256, 512)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`. H and W are at least 12."""
        *features, dense = self.features
        for layer, channels in enumerate(features):
            x = Conv(channels, 3, padding=1, pool=layer < 2)(x)
            x = nn.relu(x) if layer < 2 else x
        x = nn.relu(nn.max_pool(x, (3, 3), strides=(2, 2)))
        return Dense(self.num_classes)(Dense(dense)(x.reshape(x.shape[0], -1)))


class IdealLeNet(nn.Module):
    """Two 5 x 5 convolutions that keep the size, each with batch norm, ReLU and 2 x 2 max-pool; then one dense layer.

    On 28 x 28 x 1 images of 10 classes the network has 29,034 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the two convolutions.
    """

    num_classes: int
    features: tuple[int, int] = (16, 32)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`. H and W are at least 4."""
        for channels in self.features:
            x = Conv(channels, 5, padding=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))
            x = max_pool(x)
        return Dense(self.num_classes)(x.reshape(x.shape[0], -1))


class IdealMLP(nn.Module):
    """A fully connected network with ReLU and two hidden layers.

    It returns logits. The released code ends in a softmax, and its loss uses the probabilities as logits. On
    28 x 28 x 1 images of 10 classes the network has 468,874 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Units of the hidden layers.
    """

    num_classes: int
    features: tuple[int, int] = (512, 128)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`."""
        x = x.reshape(x.shape[0], -1)
        for units in self.features:
            x = nn.relu(Dense(units)(x))
        return Dense(self.num_classes)(x)


class IdealCNN(nn.Module):
    """Three 3 x 3 convolutions with ReLU and no padding, 2 x 2 max-pools after the first two, one dense layer.

    On 32 x 32 x 3 images of 10 classes the network has 912,778 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Channels of the three convolutions.
    """

    num_classes: int
    features: tuple[int, int, int] = (256, 256, 128)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`. H and W are at least 18."""
        for layer, channels in enumerate(self.features):
            x = nn.relu(Conv(channels, 3, pool=layer < 2)(x))
        return Dense(self.num_classes)(x.reshape(x.shape[0], -1))
