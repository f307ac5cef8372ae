"""Generators: networks that make inputs of a domain from latent vectors."""

import functools
import math
from typing import Any

import dm_pix
import flax.linen as nn
import jax
import numpy as np
from jax import Array
from scipy import optimize, special

from cake_jax.models.layers import Conv, Dense
from cake_jax.models.operations import upsampled_convolution
from cake_jax.types import DataSpec

_normal = nn.initializers.normal(0.02)
# Where a domain has no bound, a generator stays within so many standard deviations of its mean.
_REACH = 3.0
# Deviation of a generator's pixels at most, as a share of that of black and white alone, where no gradient would be.
_MOST_CONTRAST = 0.95


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
      moments: In place of `spread`, each image is scaled and shifted before the sigmoid so that its pixels come near
        the mean and the deviation that `spec` tells: bright strokes on black for MNIST, soft greys for photographs.
      blur: Standard deviation, in pixels, of a Gaussian blur before that; 0 for none.

    Source: IDEAL (arXiv 2205.11158), its released code.
    """

    spec: DataSpec
    features: tuple[int, int, int] = (32, 32, 16)
    spread: float = 1.0
    moments: bool = False
    blur: float = 0.0

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
        x = Conv(channels, 3, padding=1, kernel_init=_normal)(x)[:, :height, :width]
        if self.blur:
            x = dm_pix.gaussian_blur(x, self.blur, kernel_size=2 * math.ceil(2 * self.blur) + 1)
        if not self.moments:
            return _within(self.spec, x, self.spread)
        low, high = (np.broadcast_to(bound, channels) for bound in _bounds(self.spec))
        scale, shift = np.transpose([logit_normal(-a / (b - a), 1 / (b - a)) for a, b in zip(low, high, strict=True)])
        return _within(self.spec, scale * jax.nn.standardize(x, axis=(1, 2), epsilon=1e-10) + shift, spread=0.0)


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


def generator(
    spec: DataSpec, features: tuple[int, ...] = (), spread: float = 1.0, *, moments: bool = False, blur: float = 0.0
) -> nn.Module:
    """The generator for a domain: of images, or of vectors.

    Args:
      spec: The domain.
      features: Of the generator; its own where empty.
      spread: Of the generator.
      moments: Of a generator of images; others have none.
      blur: Likewise.

    Returns:
      A module that is called on latents `[B, L]`.
    """
    options: dict[str, Any] = {"features": features} if features else {}
    if not spec.is_image:
        return VectorGenerator(spec, spread=spread, **options)
    return ImageGenerator(spec, spread=spread, moments=moments, blur=blur, **options)


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
    low, high = _bounds(spec)
    return low + (high - low) * nn.sigmoid(x)


def _bounds(spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest value that a generator makes, `[C]` or a scalar, in normalised units."""
    low, high = spec.bounds
    return np.where(np.isfinite(low), low, -_REACH), np.where(np.isfinite(high), high, _REACH)


@functools.cache
def logit_normal(mean: float, std: float) -> tuple[float, float]:
    """The normal distribution whose sigmoid has given moments.

    Args:
      mean: In (0, 1).
      std: Above 0; no more than `_MOST_CONTRAST` of what black and white alone would have is asked for.

    Returns:
      Its standard deviation and mean.
    """
    mean = float(np.clip(mean, 0.01, 0.99))
    std = min(float(std), _MOST_CONTRAST * math.sqrt(mean * (1 - mean)))
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    weights /= weights.sum()

    def error(normal: np.ndarray) -> list[float]:
        values = special.expit(np.exp(normal[0]) * points + normal[1])
        found = weights @ values
        return [found - mean, math.sqrt(weights @ np.square(values - found)) - std]

    log_std, centre = optimize.least_squares(error, [0.0, special.logit(mean)]).x
    return math.exp(log_std), float(centre)
