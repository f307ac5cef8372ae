"""Layers that are fast on the backend at hand, with the parameters of their `flax.linen` originals."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

_NHWC = ("NHWC", "HWIO", "NHWC")
# Input times output channels up to which it costs less on a CPU to multiply by the zeros of a product of rows than to
# let XLA convolve few channels; LeNet-5 has 6 and 96.
_FEW_CHANNELS = 128


class Conv(nn.Module):
    """A convolution of square windows, with a 2 x 2 max-pool of the result if wanted.

    Names, shapes and first values of the parameters are those of `nn.Conv`, so a checkpoint fits both.

    Attributes:
      features: F.
      kernel_size: Side of the window.
      strides: Of the window, in both directions.
      padding: Pixels of zeros on all sides.
      use_bias: Whether a bias is added.
      pool: Whether the maximum over 2 x 2 pixels is taken, with stride 2; an odd last row or column is dropped.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    use_bias: bool = True
    pool: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H', W', F]` of x `[B, H, W, C]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        x, kernel = promote_dtype(x, self.param("kernel", nn.linear.default_kernel_init, shape))
        y = convolution(x, kernel, self.strides, self.padding, split_columns=self.pool)
        if self.pool:
            y = _max_pool(y)
        if self.use_bias:
            # After the pool there is less to add to. A row of it, made beforehand, leaves XLA a loop without divisions,
            # which few channels otherwise need at every element.
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            row = lax.optimization_barrier(jnp.tile(bias, y.shape[2]))
            y = (y.reshape(*y.shape[:2], -1) + row).reshape(y.shape)
        return y


def convolution(x: Array, kernel: Array, strides: int, padding: int, *, split_columns: bool = False) -> Array:
    """`lax.conv_general_dilated` for images; on a CPU in a form, and with a gradient, that run fast there.

    XLA's CPU kernels are fast for a forward convolution of many channels. They are slow for one of few, for gradients
    with respect to the input where the padding is not the usual one, and above all for gradients with respect to the
    kernel. So convolutions of few channels become matrix products of rows, and others take a gradient of their own.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, F]`.
      strides: In both directions.
      padding: Pixels of zeros on all sides.
      split_columns: Give columns 0, 2, 4 ... first and then 1, 3, 5 ..., of an odd number all but the last.

    Returns:
      `[B, H', W', F]`.
    """
    _, width, channels, features = kernel.shape
    one_column = x.shape[2] + 2 * padding == width
    if jax.default_backend() == "cpu" and strides == 1 and (channels * features <= _FEW_CHANNELS or one_column):
        return _row_products(_pad(x, [(padding, padding)] * 2), kernel, split_columns)
    if jax.default_backend() == "cpu":
        y = _convolution(x, kernel, strides, padding)
    else:
        y = _convolve(x, kernel, strides, [(padding, padding)] * 2)
    return y[:, :, _even_then_odd(y.shape[2])] if split_columns else y


def _max_pool(x: Array) -> Array:
    """Maximum over 2 x 2 pixels of x `[B, H, W, C]`, whose columns are split as `convolution` does.

    A maximum of slices: on a CPU its gradient is much cheaper than that of a windowed reduction, and the larger the
    slices the cheaper.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2]
    x = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
    return jnp.maximum(x[:, :, : width // 2], x[:, :, width // 2 :])


def _even_then_odd(columns: int) -> np.ndarray:
    return np.arange(columns // 2 * 2).reshape(-1, 2).T.ravel()


def _row_products(x: Array, kernel: Array, split_columns: bool) -> Array:
    """A convolution of stride 1 without padding as products of rows of pixels with a banded (Toeplitz) matrix.

    h rows of the image, one after the other, make h W C numbers, and the row of the result W' F: few channels, yet wide
    enough for a fast product. The price is multiplying by the zeros outside the band, W / w times as many as needed.
    """
    height, width, channels, features = kernel.shape
    batch, rows_in, columns_in, _ = x.shape
    rows, columns = rows_in - height + 1, columns_in - width + 1
    order = _even_then_odd(columns) if split_columns else np.arange(columns)
    shifts = np.stack([np.eye(columns_in, columns, -shift)[:, order] for shift in range(width)])
    band = jnp.einsum("ijkf,jvc->ivkcf", kernel, shifts.astype(kernel.dtype))
    x = x.reshape(batch, rows_in, columns_in * channels)
    windows = jnp.concatenate([x[:, row : row + rows] for row in range(height)], axis=-1)
    return (windows @ band.reshape(windows.shape[-1], -1)).reshape(batch, rows, len(order), features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, strides: int, padding: int) -> Array:
    """A convolution whose gradients are forward convolutions of stride 1, and matrix products."""
    return _convolve(x, kernel, strides, [(padding, padding)] * 2)


def _forward(x: Array, kernel: Array, strides: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, strides, padding), (x, kernel)


def _backward(strides: int, padding: int, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    return (
        _input_gradient(cotangent, kernel, strides, padding, x.shape),
        _kernel_gradient(cotangent, x, strides, padding, kernel.shape),
    )


_convolution.defvjp(_forward, _backward)


def _input_gradient(cotangent: Array, kernel: Array, strides: int, padding: int, shape: tuple[int, ...]) -> Array:
    """Pixels of one phase, those at the same place modulo the strides, see the same taps of the kernel: for each phase
    a convolution of the cotangent with these taps, turned around; their results interleave."""
    batch, height, width, channels = shape
    sizes = (-(-height // strides), -(-width // strides))

    def phase(place: tuple[int, ...]) -> Array:
        taps, pads = kernel.swapaxes(2, 3), []
        for axis, offset in enumerate(place):
            shift, first = divmod(offset + padding, strides)
            taps = jnp.flip(lax.slice_in_dim(taps, min(first, taps.shape[axis]), None, strides, axis), axis)
            pads.append((taps.shape[axis] - 1 - shift, sizes[axis] - cotangent.shape[axis + 1] + shift))
        if not taps.size:
            return jnp.zeros((batch, *sizes, channels), cotangent.dtype)
        return _convolve(cotangent, taps, 1, pads)

    phases = [phase(place) for place in np.ndindex(strides, strides)]
    if strides == 1:
        return phases[0]
    grid = jnp.stack(phases).reshape(strides, strides, batch, *sizes, channels).transpose(2, 3, 0, 4, 1, 5)
    return grid.reshape(batch, sizes[0] * strides, sizes[1] * strides, channels)[:, :height, :width]


def _kernel_gradient(cotangent: Array, x: Array, strides: int, padding: int, shape: tuple[int, ...]) -> Array:
    """A matrix product for each tap of the kernel."""
    x = _pad(x, [(padding, padding)] * 2)
    height, width = (strides * (size - 1) + 1 for size in cotangent.shape[1:3])
    taps = [
        jnp.einsum("bhwc,bhwf->cf", x[:, i : i + height : strides, j : j + width : strides], cotangent)
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return jnp.stack(taps).reshape(shape)


def _convolve(x: Array, kernel: Array, strides: int, pads: Sequence[tuple[int, int]]) -> Array:
    """XLA's own convolution; what negative padding drops is cut off first, because XLA's CPU kernel reads it."""
    x = _pad(x, [(min(low, 0), min(high, 0)) for low, high in pads])
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    return lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=_NHWC)


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
