"""VGG with batch norm, with a small head or that of torchvision."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.operations import max_pool


class VGG(nn.Module):
    """Stages of 3 x 3 convolutions, each with batch norm and ReLU; then 2 x 2 max-pools, and a head.

    VGG-8 has 3,918,858 parameters on 32 x 32 x 3 images of 10 classes; VGG-11 9,231,114, and with `large_head` and 1000
    classes torchvision's 132,868,840. Dropout, which torchvision has in its head, is left out.

    Attributes:
      num_classes: K.
      layers: Convolutions of each stage.
      features: Channels of each stage.
      smallest: A stage ends in a pool while that leaves at least so many pixels in both directions.
      large_head: Two dense layers of 4096 after an adaptive mean to 7 x 7 pixels, rather than a mean over the image.

    Source: Simonyan, Zisserman 2014 (arXiv 1409.1556), configuration A; VGG-8 as in Tian, Krishnan, Isola 2019
    (arXiv 1910.10699), whose last stages see 4 x 4 pixels of small images.
    """

    num_classes: int
    layers: Sequence[int] = (1, 1, 2, 2, 2)
    features: Sequence[int] = (64, 128, 256, 512, 512)
    smallest: int = 1
    large_head: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        for count, features in zip(self.layers, self.features, strict=True):
            for _ in range(count):
                x = Conv(features, 3, padding=1)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))
            if min(x.shape[1:3]) >= 2 * self.smallest:
                x = max_pool(x)
        if not self.large_head:
            return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))
        x = _adaptive_mean(x, 7).reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(Dense(4096)(x))
        return Dense(self.num_classes)(x)


def _adaptive_mean(x: Array, size: int) -> Array:
    """Means over a grid of `size` x `size` windows, which overlap where it does not divide the image, as PyTorch's."""

    def windows(pixels: int) -> np.ndarray:
        weights = np.zeros((size, pixels), np.float32)
        for row in range(size):
            inside = slice(row * pixels // size, -(-(row + 1) * pixels // size))
            weights[row, inside] = 1 / (inside.stop - inside.start)
        return weights

    rows, columns = (windows(pixels).astype(x.dtype) for pixels in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
