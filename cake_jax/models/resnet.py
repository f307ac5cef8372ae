"""Residual networks with batch norm, and a stem for small images or for ImageNet."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax import checks
from cake_jax.models.layers import Conv, Dense


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut.

    Attributes:
      features: Number of channels F.
      strides: Stride of the first convolution and of the shortcut.
      shortcut: See `ResNet`.
    """

    features: int
    strides: int = 1
    shortcut: str = "projection"

    @nn.compact
    def __call__(self, x: Array, norm: Callable[[], nn.Module]) -> Array:
        """Features `[B, H / strides, W / strides, F]` of x `[B, H, W, C]`. `norm` makes the batch norms."""
        y = nn.relu(norm()(_conv(self.features, 3, self.strides)(x)))
        y = norm()(_conv(self.features, 3)(y))
        return nn.relu(y + _shortcut(x, self.features, self.strides, norm, self.shortcut))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut. The last convolution has four times as many channels.

    Attributes:
      features: Number of channels F of the first two convolutions.
      strides: Stride of the 3 x 3 convolution and of the shortcut.
      shortcut: See `ResNet`.
    """

    features: int
    strides: int = 1
    shortcut: str = "projection"

    @nn.compact
    def __call__(self, x: Array, norm: Callable[[], nn.Module]) -> Array:
        """Features `[B, H / strides, W / strides, 4 F]` of x `[B, H, W, C]`. `norm` makes the batch norms."""
        y = nn.relu(norm()(_conv(self.features, 1)(x)))
        y = nn.relu(norm()(_conv(self.features, 3, self.strides)(y)))
        y = norm()(_conv(4 * self.features, 1)(y))
        return nn.relu(y + _shortcut(x, 4 * self.features, self.strides, norm, self.shortcut))


class ResNet(nn.Module):
    """A residual network. The first block of every stage after the first halves height and width.

    On 32 x 32 x 3 images of 10 classes, ResNet-20, 32, 56 and 110 have 272,474, 466,906, 855,770 and 1,730,714
    parameters. With the shortcut `padding` they have 2,752 fewer, those of the paper's section 4.2. ResNet-8x4 has
    1,210,410 and ResNet-32x4 7,410,730 parameters.

    Attributes:
      num_classes: Number of classes K.
      blocks: Number of blocks in each stage.
      bottleneck: Whether blocks are `Bottleneck` rather than `BasicBlock`.
      features: Features of the blocks in each stage.
      stem_features: Number of channels of the stem. 0 for as many as the first entry of `features`.
      imagenet_stem: Whether the stem is a 7 x 7 convolution of stride 2 and a 3 x 3 max-pool of stride 2. Otherwise it
        is one 3 x 3 convolution.
      stem_strides: Stride of the 3 x 3 stem.
      shortcut: How a block changes the shape of x: `projection`, a 1 x 1 convolution and a batch norm, or
        `padding`, every second pixel and channels of zeros. The paper calls them B and A.

    Raises:
      CakeError: `shortcut` is neither.

    Source: He et al. 2015 (arXiv 1512.03385). The stem for small images is that of its section 4.2, at stride 1.
      ResNet-8x4 and ResNet-32x4: Tian, Krishnan, Isola 2019 (arXiv 1910.10699).
    """

    num_classes: int
    blocks: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    features: Sequence[int] = (64, 128, 256, 512)
    imagenet_stem: bool = False
    stem_strides: int = 1
    stem_features: int = 0
    shortcut: str = "projection"

    def __post_init__(self) -> None:
        checks.one_of("model.options.shortcut", self.shortcut, ("projection", "padding"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        block = Bottleneck if self.bottleneck else BasicBlock
        stem = (7, 2) if self.imagenet_stem else (3, self.stem_strides)
        x = _conv(self.stem_features or self.features[0], *stem)(x)
        x = nn.relu(norm()(x))
        if self.imagenet_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, (count, features) in enumerate(zip(self.blocks, self.features, strict=True)):
            for number in range(count):
                x = block(features, 2 if stage and not number else 1, self.shortcut)(x, norm)
        return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


def _conv(features: int, size: int, strides: int = 1) -> nn.Module:
    """A convolution without bias. Padding is symmetric at stride 2 too, as in PyTorch."""
    return Conv(features, size, strides, padding=size // 2, use_bias=False)


def _shortcut(x: Array, features: int, strides: int, norm: Callable[[], nn.Module], kind: str) -> Array:
    """x itself if the shape does not change, otherwise its projection, or its pixels with further channels of zeros."""
    if x.shape[-1] == features and strides == 1:
        return x
    if kind == "padding":
        more = features - x.shape[-1]
        return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
    return norm()(_conv(features, 1, strides)(x))
