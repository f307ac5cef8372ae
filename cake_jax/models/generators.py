"""Generators: networks that map latents to inputs of a classifier."""

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
# If the specification has no bounds, outputs stay within this many standard deviations of the mean.
_REACH = 3.0
# Largest standard deviation of pixels, as a share of that of only black and white pixels. At 1, gradients would vanish.
_MOST_CONTRAST = 0.95


class ImageGenerator(nn.Module):
    """Maps latents to images: a dense layer, three 3 x 3 convolutions and a sigmoid.

    The layers in order:
    1. A dense layer to `[H / 4, W / 4]` pixels, and batch norm.
    2. Twice: doubled height and width, a convolution, batch norm, and a leaky ReLU of slope 0.2.
    3. A convolution to C channels, then `blur`, then `spread` or `moments`, then the sigmoid.

    Batch norm always uses the current batch. Initial weights have mean 0, and initial scales of batch norm have mean 1.
    Both have standard deviation 0.02. Initial biases are 0.

    IDEAL's generator has the features (128, 128, 64) and no batch norm before the sigmoid. For 28 x 28 x 1 images and
    latents of width 256 it has 1,834,305 parameters.

    Attributes:
      spec: Specification of the inputs. Images may have any size.
      features: Channels of the dense layer and of the first two convolutions.
      spread: Standard deviation of each channel before the sigmoid. A batch norm sets it, so the generator cannot map
        all latents to one image. DFAD's generators (arXiv 1912.11006) end with such a layer. 0 for no batch norm.
      moments: Whether each image is scaled and shifted before the sigmoid, in place of `spread`. Its pixels then have
        about the mean and standard deviation of `spec`: bright strokes on black for MNIST, soft greys for photographs.
      blur: Standard deviation of a Gaussian blur, in pixels. 0 for none.

    Source: IDEAL (arXiv 2205.11158), its released code.
    """

    spec: DataSpec
    features: tuple[int, int, int] = (32, 32, 16)
    spread: float = 1.0
    moments: bool = False
    blur: float = 0.0

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Makes images `[B, H, W, C]` from B latents z, in normalised units and within the valid range."""
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
    """Maps latents to vectors: dense layers with ReLU between them, and a sigmoid.

    Attributes:
      spec: Specification of the inputs, which may have any shape.
      features: Units of the hidden layers.
      spread: Standard deviation of each value before the sigmoid, as in `ImageGenerator`.
    """

    spec: DataSpec
    features: tuple[int, ...] = (64, 64)
    spread: float = 1.0

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Makes inputs `[B, *shape]` from B latents z, in normalised units and within the valid range."""
        for features in self.features:
            z = nn.relu(Dense(features)(z))
        x = Dense(int(np.prod(self.spec.shape)))(z)
        return _within(self.spec, x.reshape(-1, *self.spec.shape), self.spread)


def generator(
    spec: DataSpec, features: tuple[int, ...] = (), spread: float = 1.0, *, moments: bool = False, blur: float = 0.0
) -> nn.Module:
    """Makes an `ImageGenerator` for images, or a `VectorGenerator` for other inputs.

    Args:
      spec: Specification of the inputs.
      features: `features` of the generator. Empty for the default.
      spread: `spread` of the generator.
      moments: `moments` of an `ImageGenerator`. A `VectorGenerator` has none.
      blur: `blur` of an `ImageGenerator`. A `VectorGenerator` has none.

    Returns:
      A module that maps B latents to inputs `[B, *shape]`.
    """
    options: dict[str, Any] = {"features": features} if features else {}
    if not spec.is_image:
        return VectorGenerator(spec, spread=spread, **options)
    return ImageGenerator(spec, spread=spread, moments=moments, blur=blur, **options)


def generate(module: nn.Module, params: Any, z: Array) -> Array:
    """Makes inputs `[B, *shape]` from B latents z. Batch norm uses this batch, and running averages are discarded."""
    x, _ = module.apply({"params": params}, z, mutable=["batch_stats"])
    return x


def _batch_norm(**options: Any) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=False, epsilon=1e-5, **options)


def _scaled_batch_norm() -> nn.BatchNorm:
    return _batch_norm(scale_init=lambda *args: 1.0 + _normal(*args))


def _within(spec: DataSpec, x: Array, spread: float) -> Array:
    """The sigmoid of x, scaled to the valid range. If `spread` is above 0, a batch norm comes first."""
    if spread:
        x = spread * _batch_norm(use_bias=False, use_scale=False)(x)
    low, high = _bounds(spec)
    return low + (high - low) * nn.sigmoid(x)


def _bounds(spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest output of a generator in normalised units, each `[C]` or `[1]`."""
    low, high = spec.bounds
    return np.where(np.isfinite(low), low, -_REACH), np.where(np.isfinite(high), high, _REACH)


@functools.cache
def logit_normal(mean: float, std: float) -> tuple[float, float]:
    """Finds the normal distribution whose sigmoid has the given moments.

    Args:
      mean: Mean of the sigmoid, in (0, 1). It is clipped to [0.01, 0.99].
      std: Standard deviation of the sigmoid, above 0. It is limited to 95 % of `sqrt(mean (1 - mean))`, the standard
        deviation of only black and white pixels.

    Returns:
      The standard deviation and the mean of the normal distribution.
    """
    # Python floats, because the fit fails in single precision.
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
