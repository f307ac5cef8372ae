"""Products and convolutions in the form, and with the gradient, that runs fast on the backend at hand."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_NHWC = ("NHWC", "HWIO", "NHWC")
# Input times output channels up to which it costs less on a CPU to multiply by the zeros of a product of rows than to
# let XLA convolve few channels; LeNet-5 has 6 and 96. Where the result has one or two columns, the zeros are few.
_FEW_CHANNELS, _FEW_CHANNELS_OF_TWO_COLUMNS = 128, 128**2
# Bytes that a convolution in bf16 lays side by side at once: what a core's cache holds.
_COLUMN_BYTES = 2**20


@jax.custom_vjp
def product(a: Array, b: Array) -> Array:
    """`a @ b`, summed in float32 and given in the type of a.

    The gradient's products are summed so too. XLA's CPU units for bf16 give float32 sums; asked for bf16 ones it takes
    the long way, through float32 operands.

    Args:
      a: `[..., K]`.
      b: `[K, N]`, of the same type.

    Returns:
      `[..., N]`.
    """
    return _summed_in_float32(a, b).astype(a.dtype)


def _summed_in_float32(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _product_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = residuals
    rows, cotangents = a.reshape(-1, a.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    return product(cotangent, b.T), product(rows.T, cotangents)


product.defvjp(lambda a, b: (product(a, b), (a, b)), _product_backward)


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
    limit = _FEW_CHANNELS_OF_TWO_COLUMNS if x.shape[2] + 2 * padding <= width + 1 else _FEW_CHANNELS
    if jax.default_backend() == "cpu" and strides == 1 and channels * features <= limit:
        return _row_products(_pad(x, [(padding, padding)] * 2), kernel, split_columns)
    if jax.default_backend() == "cpu":
        y = _convolution(x, kernel, strides, padding)
    else:
        y = _convolve(x, kernel, strides, [(padding, padding)] * 2)
    return y[:, :, _even_then_odd(y.shape[2])] if split_columns else y


def max_pool(x: Array, *, split_columns: bool = False) -> Array:
    """Maximum over 2 x 2 pixels of x `[B, H, W, C]`, with stride 2; an odd last row or column is dropped.

    A maximum of slices: on a CPU its gradient is much cheaper than that of a windowed reduction, and the larger the
    slices the cheaper. So columns may come split as `convolution` does, with none to drop.
    """
    height, width = (size // 2 * 2 for size in x.shape[1:3])
    x = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
    if split_columns:
        return jnp.maximum(x[:, :, : width // 2], x[:, :, width // 2 :])
    return jnp.maximum(x[:, :, 0:width:2], x[:, :, 1:width:2])


def upsampled_convolution(x: Array, kernel: Array) -> Array:
    """A 3 x 3 convolution that keeps the size, of images whose pixels were doubled in both directions.

    Two of three taps see the same pixel of the small image. So at each of its corners a 2 x 2 window gives all four
    pixels of the result around the corner, with sums of taps: 16 products a pixel of the small image and not 36.

    Args:
      x: The small images, `[B, H, W, C]`.
      kernel: `[3, 3, C, F]`.

    Returns:
      `[B, 2 H, 2 W, F]`.
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]
    # Which taps (last axis) fall on the pixel before and after the corner, for the result's pixels before and after.
    taps = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], kernel.dtype)
    corner = jnp.einsum("atk,bsl,klcf->tscabf", taps, taps, kernel).reshape(2, 2, -1, 4 * features)
    y = convolution(x, corner, 1, 1).reshape(batch, height + 1, width + 1, 2, 2, features)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, 2 * width + 2, features)
    return y[:, 1:-1, 1:-1]


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
    return product(windows, band.reshape(windows.shape[-1], -1)).reshape(batch, rows, len(order), features)


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
    """XLA's own convolution, but for bf16 on a CPU, where XLA convolves in float32."""
    if jax.default_backend() == "cpu" and x.dtype == jnp.bfloat16:
        return _column_products(_pad(x, pads), kernel, strides)
    # What negative padding drops is cut off first, because XLA's CPU kernel reads it.
    x = _pad(x, [(min(low, 0), min(high, 0)) for low, high in pads])
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    return lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=_NHWC)


def _column_products(x: Array, kernel: Array, strides: int) -> Array:
    """A convolution without padding as a matrix product for each row of the kernel, a few images at a time.

    The w pixels of a kernel's row are laid side by side, w C numbers. Image rows come first, so that what a row of the
    kernel multiplies is one piece of memory.
    """
    height, width, channels, features = kernel.shape
    batch, rows_in, columns_in, _ = x.shape
    rows, columns = ((size - side) // strides + 1 for size, side in ((rows_in, height), (columns_in, width)))
    limit = _COLUMN_BYTES / (rows_in * columns * width * channels * x.dtype.itemsize)
    block = max(size for size in range(1, batch + 1) if batch % size == 0 and size <= max(limit, 1))

    def images(x: Array) -> Array:
        x = x.swapaxes(0, 1)
        shifted = [x[:, :, shift : shift + strides * (columns - 1) + 1 : strides] for shift in range(width)]
        side_by_side = jnp.concatenate(shifted, axis=-1)
        taps = [side_by_side[row : row + strides * (rows - 1) + 1 : strides] for row in range(height)]
        y = sum(
            _summed_in_float32(tap.reshape(-1, width * channels), weights.reshape(-1, features))
            for tap, weights in zip(taps, kernel, strict=True)
        )
        return jnp.reshape(y, (rows, block, columns, features)).astype(x.dtype).swapaxes(0, 1)

    return lax.map(images, x.reshape(-1, block, *x.shape[1:])).reshape(batch, rows, columns, features)


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
