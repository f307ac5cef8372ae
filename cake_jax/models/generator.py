"""Generators: networks that make inputs of a domain from latent vectors."""

from typing import Any

import flax.linen as nn
import numpy as np
from jax import Array

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.operations import upsampled_convolution
from cake_jax.types import DataSpec

_normal = nn.initializers.normal(0.02)
# Where a domain has no bound, a generator stays within so many standard deviations of its mean.
_REACH = 3.0


class ImageGenerator(nn.Module):
    """A dense layer to `[H/4, W/4]`, twice doubled pixels and a 3 x 3 convolution, a last 3 x 3 convolution, a sigmoid.

    Batch norm, always by the batch at hand, stands before the first doubling and after the two convolutions that follow
    one, there with a leaky ReLU of slope 0.2. Weights start from N(0, 0.02), biases from 0, the scales of batch norm
    from N(1, 0.02). IDEAL has 128, 128 and 64 features and no batch norm before the sigmoid: 1,834,305 parameters for
    28 x 28 x 1 images with latents 256 wide.

    Attributes:
      spec: The domain, of images of any size.
      features: Channels of the dense layer and of the two convolutions.
      spread: Standard deviation, over the batch at hand, that a batch norm gives to each channel before the sigmoid:
        it keeps a generator from making one and the same input of all latents, as the last layer of the generators of
        DFAD (arXiv 1912.11006) does. 0 for none.

    Source: IDEAL (arXiv 2205.11158), its released code.
    """

    spec: DataSpec
    features: tuple[int, int, int] = (32, 32, 16)
    spread: float = 1.0

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Images `[B, H, W, C]` in normalised units, within the valid range, of latents z `[B, L]`."""
        height, width, channels = self.spec.shape
        small = (-(-height // 4), -(-width // 4), self.features[0])
        x = Dense(int(np.prod(small)), kernel_init=_normal)(z).reshape(-1, *small)
        x = _scaled_batch_norm()(x)
        for layer, features in enumerate(self.features[1:]):
            kernel = self.param(f"kernel_{layer}", _normal, (3, 3, x.shape[-1], features))
            x = nn.leaky_relu(_scaled_batch_norm()(upsampled_convolution(x, kernel)), 0.2)
        x = Conv(channels, 3, padding=1, kernel_init=_normal)(x)
        return _within(self.spec, x[:, :height, :width], self.spread)


class VectorGenerator(nn.Module):
    """Dense layers with ReLU between them, and a sigmoid.

    Attributes:
      spec: The domain, of any shape.
      features: Units of the hidden layers.
      spread: As that of `ImageGenerator`, for each value of a vector.
    """

    spec: DataSpec
    features: tuple[int, ...] = (64, 64)
    spread: float = 1.0

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Inputs `[B, *shape]` in normalised units, within the valid range, of latents z `[B, L]`."""
        for features in self.features:
            z = nn.relu(Dense(features)(z))
        x = Dense(int(np.prod(self.spec.shape)))(z)
        return _within(self.spec, x.reshape(-1, *self.spec.shape), self.spread)


def generator(spec: DataSpec, features: tuple[int, ...] = (), spread: float = 1.0) -> nn.Module:
    """The generator for a domain: of images, or of vectors.

    Args:
      spec: The domain.
      features: Of the generator; its own where empty.
      spread: Of the generator.

    Returns:
      A module that is called on latents `[B, L]`.
    """
    options: dict[str, Any] = {"features": features} if features else {}
    return (ImageGenerator if spec.is_image else VectorGenerator)(spec, spread=spread, **options)


def generate(module: nn.Module, params: Any, z: Array) -> Array:
    """Inputs `[B, *shape]` of latents z `[B, L]`; batch norm goes by this batch, and no averages are kept."""
    x, _ = module.apply({"params": params}, z, mutable=["batch_stats"])
    return x


def _batch_norm(**options: Any) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=False, epsilon=1e-5, **options)


def _scaled_batch_norm() -> nn.BatchNorm:
    return _batch_norm(scale_init=lambda *args: 1.0 + _normal(*args))


def _within(spec: DataSpec, x: Array, spread: float) -> Array:
    """The sigmoid of x, as a share of the valid range."""
    if spread:
        x = spread * _batch_norm(use_bias=False, use_scale=False)(x)
    low, high = spec.bounds
    low, high = np.where(np.isfinite(low), low, -_REACH), np.where(np.isfinite(high), high, _REACH)
    return low + (high - low) * nn.sigmoid(x)
