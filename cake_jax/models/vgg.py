"""VGG with batch norm, and a small head or that of torchvision."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.operations import max_pool


class VGG(nn.Module):
    """Stages of 3 x 3 convolutions with batch norm and ReLU, each followed by a 2 x 2 max-pool, and a head.

    On 32 x 32 x 3 images of 10 classes, VGG-8 has 3,918,858 parameters, VGG-11 9,231,114 and VGG-13 9,416,010. With
    `large_head` and 1000 classes, VGG-11 has torchvision's 132,868,840 and VGG-13 its 133,053,736. The dropout of
    torchvision's head is left out.

    Attributes:
      num_classes: Number of classes K.
      layers: Number of convolutions in each stage.
      features: Channels of each stage.
      smallest: Smallest side after a pool, in pixels. A stage whose pool would leave less has no pool. With
        `large_head` it counts as 1.
      large_head: Whether an adaptive mean to 7 x 7 pixels and two dense layers of 4096 units precede the last layer.
        Otherwise a mean over the image does.

    Source: Simonyan, Zisserman 2014 (arXiv 1409.1556), configurations A and B. VGG-8, and `smallest` of 4 pixels for
      small images: Tian, Krishnan, Isola 2019 (arXiv 1910.10699).
    """

    num_classes: int
    layers: Sequence[int] = (1, 1, 2, 2, 2)
    features: Sequence[int] = (64, 128, 256, 512, 512)
    smallest: int = 1
    large_head: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        smallest = 1 if self.large_head else self.smallest
        for count, features in zip(self.layers, self.features, strict=True):
            for _ in range(count):
                x = Conv(features, 3, padding=1)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))
            if min(x.shape[1:3]) >= 2 * smallest:
                x = max_pool(x)
        if not self.large_head:
            return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))
        x = adaptive_mean(x, 7).reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(Dense(4096)(x))
        return Dense(self.num_classes)(x)


def adaptive_mean(x: Array, size: int) -> Array:
    """Means over a grid of `size` x `size` windows, as PyTorch's `adaptive_avg_pool2d` computes them.

    If `size` does not divide a side of the image, the windows overlap.

    Args:
      x: `[B, H, W, C]`.
      size: Number of windows in each direction.

    Returns:
      `[B, size, size, C]`.
    """

    def windows(pixels: int) -> np.ndarray:
        weights = np.zeros((size, pixels), np.float32)
        for row in range(size):
            inside = slice(row * pixels // size, -(-(row + 1) * pixels // size))
            weights[row, inside] = 1 / (inside.stop - inside.start)
        return weights

    rows, columns = (windows(pixels).astype(x.dtype) for pixels in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
