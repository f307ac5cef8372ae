"""ShuffleNetV2: half of the channels pass each unit unchanged, and then the channels are shuffled."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.mobilenet import depthwise


class ShuffleUnit(nn.Module):
    """1 x 1, depthwise 3 x 3 and 1 x 1 convolutions of one half of the channels. Figure 3 (c) and (d) of the paper.

    Attributes:
      features: Number of channels F.
      strides: 1, or 2. At stride 2, both halves are made of all channels, and the other half has convolutions too.
    """

    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array, norm: Callable[[], nn.Module]) -> Array:
        """Features `[B, H / strides, W / strides, F]` of x `[B, H, W, C]`. `norm` makes the batch norms."""
        half = self.features // 2
        if self.strides == 1:
            first, second = jnp.split(x, 2, axis=-1)
        else:
            first = norm()(depthwise(x.shape[-1], self.strides)(x))
            first, second = nn.relu(norm()(_pointwise(half)(first))), x
        second = nn.relu(norm()(_pointwise(half)(second)))
        second = norm()(depthwise(half, self.strides)(second))
        second = nn.relu(norm()(_pointwise(half)(second)))
        return _shuffled(first, second)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 as torchvision has it. At width 1.0 with 1000 classes it has 2,278,604 parameters.

    Attributes:
      num_classes: Number of classes K.
      features: Number of channels of the stem, the three stages, and the last convolution.
      blocks: Number of units in each stage.
      imagenet_stem: Whether the stem has stride 2, and a 3 x 3 max-pool of stride 2 follows. Otherwise the stem has
        stride 1 and no pool, for small images.

    Source: Ma et al. 2018 (arXiv 1807.11164), table 5.
    """

    num_classes: int
    features: Sequence[int] = (24, 116, 232, 464, 1024)
    blocks: Sequence[int] = (4, 8, 4)
    imagenet_stem: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        stem, *stages, last = self.features
        x = Conv(stem, 3, 2 if self.imagenet_stem else 1, padding=1, use_bias=False)(x)
        x = nn.relu(norm()(x))
        if self.imagenet_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for features, count in zip(stages, self.blocks, strict=True):
            for number in range(count):
                x = ShuffleUnit(features, 1 if number else 2)(x, norm)
        x = nn.relu(norm()(_pointwise(last)(x)))
        return Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


def _pointwise(features: int) -> nn.Module:
    """A 1 x 1 convolution without bias."""
    return Conv(features, 1, use_bias=False)


def _shuffled(first: Array, second: Array) -> Array:
    """The channels of two halves, one of each in turn: two arrays `[..., C]` to `[..., 2 C]`."""
    both = jnp.stack([first, second], axis=-1)
    return both.reshape(*first.shape[:-1], -1)
