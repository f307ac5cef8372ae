"""Layers that are fast on the backend at hand, behind the names and the parameter layout of `flax.linen`."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_Pads = tuple[tuple[int, int], ...]


def Conv(features: int, kernel_size: tuple[int, int], **options: Any) -> nn.Conv:
    """`nn.Conv`, computed by `convolution`: same options, same parameters, same name in the variables."""
    return nn.Conv(features, kernel_size, conv_general_dilated=convolution, **options)


def convolution(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """`lax.conv_general_dilated` for images; on a CPU in a form, and with a gradient, that run fast there.

    XLA's CPU kernels are fast for a forward convolution of many channels, and slow for one of few, for gradients with
    respect to the input where the padding is not the usual one, and above all for gradients with respect to the kernel.
    So convolutions of few channels become matrix products of rows, and the others take a gradient of their own.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, F]`.
      strides: Two ints.
      padding: As `lax.conv_general_dilated` takes it.
      **options: Its other options.

    Returns:
      `[B, H', W', F]`.
    """
    options = {"dimension_numbers": _NHWC, **options}
    height, width, channels, features = kernel.shape
    if jax.default_backend() != "cpu" or not _is_plain(options):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (height, width), strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    one_column = x.shape[2] + sum(pads[1]) == width
    if tuple(strides) == (1, 1) and (channels * features <= _FEW_CHANNELS or one_column):
        return _row_products(_pad(x, pads), kernel)
    return _convolution(x, kernel, (int(strides[0]), int(strides[1])), pads)


_NHWC = ("NHWC", "HWIO", "NHWC")
# Input times output channels up to which it costs less to multiply by the zeros of a product of rows than to let XLA
# convolve few channels; LeNet-5 has 6 and 96.
_FEW_CHANNELS = 128


def _row_products(x: Array, kernel: Array) -> Array:
    """A VALID convolution of stride 1 as products of rows of pixels with a banded (Toeplitz) matrix.

    h rows of the image, one after the other, make h W C numbers, and the row of the result W' F: few channels, yet wide
    enough for a fast product. The price is multiplying by the zeros outside the band, W / w times as many as needed.
    """
    height, width, channels, features = kernel.shape
    batch, rows_in, columns_in, _ = x.shape
    rows, columns = rows_in - height + 1, columns_in - width + 1
    shifts = np.stack([np.eye(columns_in, columns, -shift) for shift in range(width)])
    band = jnp.einsum("ijkf,jvc->ivkcf", kernel, shifts.astype(kernel.dtype))
    x = x.reshape(batch, rows_in, columns_in * channels)
    windows = jnp.concatenate([x[:, row : row + rows] for row in range(height)], axis=-1)
    return (windows @ band.reshape(windows.shape[-1], -1)).reshape(batch, rows, columns, features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, strides: tuple[int, int], pads: _Pads) -> Array:
    """A convolution whose gradients are forward convolutions of stride 1, and matrix products."""
    return _convolve(x, kernel, strides, pads)


def _convolution_forward(
    x: Array, kernel: Array, strides: tuple[int, int], pads: _Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, strides, pads), (x, kernel)


def _convolution_backward(
    strides: tuple[int, int], pads: _Pads, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    return (
        _input_gradient(cotangent, kernel, strides, pads, x.shape),
        _kernel_gradient(cotangent, x, strides, pads, kernel.shape),
    )


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _input_gradient(
    cotangent: Array, kernel: Array, strides: tuple[int, int], pads: _Pads, shape: tuple[int, ...]
) -> Array:
    """Pixels of one phase, those at the same place modulo the strides, see the same taps of the kernel: for each phase
    a convolution of the cotangent with these taps, turned around; their results interleave."""
    batch, height, width, channels = shape
    sizes = [-(-size // stride) for size, stride in zip((height, width), strides, strict=True)]
    flipped = kernel.swapaxes(2, 3)

    def phase(place: tuple[int, int]) -> Array:
        taps, phase_pads = flipped, []
        for axis, (offset, stride, (low, _)) in enumerate(zip(place, strides, pads, strict=True)):
            shift, first = divmod(offset + low, stride)
            taps = jnp.flip(lax.slice_in_dim(taps, min(first, taps.shape[axis]), None, stride, axis), axis)
            count = taps.shape[axis]
            phase_pads.append((count - 1 - shift, sizes[axis] - cotangent.shape[axis + 1] + shift))
        if not taps.size:
            return jnp.zeros((batch, *sizes, channels), cotangent.dtype)
        return _convolve(cotangent, taps, (1, 1), phase_pads)

    phases = [phase(place) for place in np.ndindex(*strides)]
    if len(phases) == 1:
        return phases[0]
    grid = jnp.stack(phases).reshape(*strides, batch, *sizes, channels).transpose(2, 3, 0, 4, 1, 5)
    whole = grid.reshape(batch, sizes[0] * strides[0], sizes[1] * strides[1], channels)
    return whole[:, :height, :width]


def _kernel_gradient(
    cotangent: Array, x: Array, strides: tuple[int, int], pads: _Pads, shape: tuple[int, ...]
) -> Array:
    """A matrix product for each tap of the kernel."""
    x = _pad(x, pads)
    ends = [stride * (size - 1) + 1 for stride, size in zip(strides, cotangent.shape[1:3], strict=True)]
    taps = [
        jnp.einsum("bhwc,bhwf->cf", x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]], cotangent)
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return jnp.stack(taps).reshape(shape)


def _convolve(x: Array, kernel: Array, strides: tuple[int, int], pads: Sequence[tuple[int, int]]) -> Array:
    """XLA's own convolution; what negative padding drops is cut off first, because XLA's CPU kernel reads it."""
    x = _pad(x, [(min(low, 0), min(high, 0)) for low, high in pads])
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_NHWC)


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])


def _is_plain(options: dict[str, Any]) -> bool:
    """Whether no option asks for more than a convolution of all channels in the type of its inputs."""
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    groups = options.get("feature_group_count", 1), options.get("batch_group_count", 1)
    named = options.get("precision"), options.get("preferred_element_type")
    layout = options["dimension_numbers"] in (_NHWC, lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)))
    return layout and {*dilations, *groups} == {1} and named == (None, None)


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
