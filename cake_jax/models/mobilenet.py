"""MobileNetV2: inverted residuals with depthwise convolutions."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense

# Expansion factor, channels, number of blocks and stride of each stage: table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """A 1 x 1 convolution to more channels, a depthwise 3 x 3 convolution, and a 1 x 1 convolution to few channels.

    Attributes:
      features: Number of channels F.
      expansion: Factor of the channels in between. With 1, the first convolution is left out.
      strides: Stride of the depthwise convolution. If it is 1 and the number of channels stays, x is added.
    """

    features: int
    expansion: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array, norm: Callable[[], nn.Module]) -> Array:
        """Features `[B, H / strides, W / strides, F]` of x `[B, H, W, C]`. `norm` makes the batch norms."""
        y, hidden = x, self.expansion * x.shape[-1]
        if self.expansion > 1:
            y = nn.relu6(norm()(Conv(hidden, 1, use_bias=False)(y)))
        y = nn.relu6(norm()(depthwise(hidden, self.strides)(y)))
        y = norm()(Conv(self.features, 1, use_bias=False)(y))
        return x + y if self.strides == 1 and x.shape[-1] == self.features else y


class MobileNetV2(nn.Module):
    """MobileNetV2 as torchvision has it, without its dropout. With 1000 classes it has 3,504,872 parameters.

    Attributes:
      num_classes: Number of classes K.
      strides: Strides of the stem and of the seven stages. The default is for ImageNet. On images of 32 x 32 pixels,
        `(1, 1, 1, 2, 2, 1, 2, 1)` keeps 4 x 4 pixels.
      blocks: Number of blocks in each stage.

    Source: Sandler et al. 2018 (arXiv 1801.04381), table 2.
    """

    num_classes: int
    strides: Sequence[int] = (2, *(stride for *_, stride in _STAGES))
    blocks: Sequence[int] = tuple(count for _, _, count, _ in _STAGES)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = nn.relu6(norm()(Conv(32, 3, self.strides[0], padding=1, use_bias=False)(x)))
        for (expansion, features, *_), count, strides in zip(_STAGES, self.blocks, self.strides[1:], strict=True):
            for number in range(count):
                x = InvertedResidual(features, expansion, 1 if number else strides)(x, norm)
        x = nn.relu6(norm()(Conv(1280, 1, use_bias=False)(x)))
        return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


def depthwise(features: int, strides: int = 1) -> nn.Module:
    """A 3 x 3 convolution of each channel by itself, without bias. Padding is symmetric at stride 2 too."""
    return nn.Conv(
        features, (3, 3), (strides, strides), padding=((1, 1), (1, 1)), feature_group_count=features, use_bias=False
    )
