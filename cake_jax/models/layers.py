"""Layers that are fast on the backend at hand, behind the names and the parameter layout of `flax.linen`."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


def Conv(features: int, kernel_size: tuple[int, int], **options: Any) -> nn.Conv:
    """`nn.Conv`, computed by `convolution`: same options, same parameters, same name in the variables."""
    return nn.Conv(features, kernel_size, conv_general_dilated=convolution, **options)


def convolution(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """`lax.conv_general_dilated` for images; on a CPU as patches times a matrix where that is faster.

    XLA's CPU kernels for few channels, and for the gradient with respect to the input of any convolution without
    padding, run at a fraction of the machine's matrix-product rate. A matrix product of image patches does not, and its
    gradients are matrix products too.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, F]`.
      strides: Two ints.
      padding: As `lax.conv_general_dilated` takes it.
      **options: Its other options.

    Returns:
      `[B, H', W', F]`.
    """
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    height, width, channels, features = kernel.shape
    pads = lax.padtype_to_pads(x.shape[1:3], (height, width), (1, 1), padding) if isinstance(padding, str) else padding
    plain = tuple(strides) == (1, 1) and min(min(pair) for pair in pads) >= 0 and _is_plain(options)
    if jax.default_backend() != "cpu" or not plain:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = jnp.concatenate(
        [x[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)], axis=-1
    )
    return patches @ kernel.reshape(height * width * channels, features)


def _is_plain(options: dict[str, Any]) -> bool:
    """Whether no option asks for more than a convolution of all channels in the type of its inputs."""
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    groups = options.get("feature_group_count", 1), options.get("batch_group_count", 1)
    named = options.get("precision"), options.get("preferred_element_type")
    return {*dilations, *groups} == {1} and named == (None, None)


def max_pool_2x2(x: Array) -> Array:
    """2 x 2 maximum with stride 2; an odd last row or column is dropped, as `nn.max_pool` with VALID padding does.

    A maximum of four slices: on a CPU its gradient is much cheaper than that of a windowed reduction.

    Args:
      x: `[B, H, W, C]`.

    Returns:
      `[B, H // 2, W // 2, C]`.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    rows = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])
