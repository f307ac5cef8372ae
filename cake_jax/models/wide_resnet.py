"""Wide residual networks."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.types import CakeError


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU and a 3 x 3 convolution, all twice, and a shortcut. Nothing follows the sum.

    The shortcut is x itself. If the number of channels changes, it is a 1 x 1 convolution of the first convolution's
    input.

    Attributes:
      features: Number of channels F.
      strides: Stride of the first convolution and of the shortcut. Above 1 only if the number of channels changes.
    """

    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array, norm: Callable[[], nn.Module]) -> Array:
        """Features `[B, H / strides, W / strides, F]` of x `[B, H, W, C]`. `norm` makes the batch norms."""
        y = nn.relu(norm()(x))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, self.strides, use_bias=False)(y)
        y = _conv(self.features, self.strides)(y)
        return x + _conv(self.features)(nn.relu(norm()(y)))


class WideResNet(nn.Module):
    """WRN-`depth`-`width`: three stages of pre-activation blocks. The second and the third halve height and width.

    Parameters on 32 x 32 x 3 images of 10 classes: 175,066 (16-1), 691,674 (16-2), 563,930 (40-1), 2,243,546 (40-2).

    Attributes:
      num_classes: Number of classes K.
      depth: Number of convolutions as the paper counts them: 6 n + 4 for n blocks in each stage.
      width: Factor of the stages' channels, which are 16, 32 and 64 at width 1.

    Raises:
      CakeError: `depth` is not 6 n + 4 for n above 0.
    Source: Zagoruyko, Komodakis 2016 (arXiv 1605.07146), table 1, without dropout.
    """

    num_classes: int
    depth: int = 16
    width: int = 1

    def __post_init__(self) -> None:
        if self.depth % 6 != 4 or self.depth < 10:
            raise CakeError(f"model.options.depth: {self.depth} is not 6 n + 4 for n blocks; give 10, 16, 22 ...")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = _conv(16)(x)
        for stage, features in enumerate((16 * self.width, 32 * self.width, 64 * self.width)):
            for number in range(self.depth // 6):
                x = PreActivationBlock(features, strides=2 if stage and not number else 1)(x, norm)
        return Dense(self.num_classes)(jnp.mean(nn.relu(norm()(x)), axis=(1, 2)))


def _conv(features: int, strides: int = 1) -> nn.Module:
    """A 3 x 3 convolution without bias. Padding is symmetric at stride 2 too, as in PyTorch."""
    return Conv(features, 3, strides, padding=1, use_bias=False)
