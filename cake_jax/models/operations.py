"""Products and convolutions in a form, and with a gradient, that are fast on the current backend."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_NHWC = ("NHWC", "HWIO", "NHWC")
# On a CPU, XLA is slow to convolve few channels. Up to this number of input times output channels, a product of rows is
# faster, although it multiplies zeros. LeNet-5's first two convolutions have 6 and 96. If the result has one or two
# columns, there are few zeros, and the limit is higher.
_FEW_CHANNELS, _FEW_CHANNELS_OF_TWO_COLUMNS = 128, 128**2
# From this number of rows of the result, one row more costs less than what it gains.
_MANY_ROWS = 8
# Smallest number of columns of a product that is fast on a CPU.
_PRODUCT_WIDTH = 32
# Bytes of pixels that are laid side by side at once. They fit into a core's cache.
_COLUMN_BYTES = 2**20


@jax.custom_vjp
def product(a: Array, b: Array) -> Array:
    """The product `a @ b`, summed in float32 and returned in the type of a.

    The products in its gradient are summed in float32 too. On a CPU this is also the fast way. The CPU's bf16 units
    return float32 sums, and for bf16 sums XLA would first convert the operands to float32.

    Args:
      a: `[..., K]`.
      b: `[K, N]`, of the same type as a.

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


def convolution(x: Array, kernel: Array, strides: int, padding: int, *, pool: bool = False) -> Array:
    """`lax.conv_general_dilated` for images. On a CPU it has a form and a gradient that are fast there.

    XLA's CPU kernels are fast for forward convolutions of many channels. They are slow for few channels, for the
    gradient with respect to the input if the padding is unusual, and above all for the gradient with respect to the
    kernel. So a convolution of few channels is computed as a product of rows. Others have a custom gradient.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, F]`.
      strides: Stride in both directions.
      padding: Number of rows and columns of zeros on each side.
      pool: Whether `max_pool` follows. With few channels, both together are faster than one after the other.

    Returns:
      `[B, H', W', F]`, or half of both sizes after the pool.
    """
    _, width, channels, features = kernel.shape
    limit = _FEW_CHANNELS_OF_TWO_COLUMNS if x.shape[2] + 2 * padding <= width + 1 else _FEW_CHANNELS
    if jax.default_backend() == "cpu" and strides == 1 and channels * features <= limit:
        return _row_products(_pad(x, [(padding, padding)] * 2), kernel, pool)
    if jax.default_backend() == "cpu":
        y = _convolution(x, kernel, strides, padding)
    else:
        y = _convolve(x, kernel, strides, [(padding, padding)] * 2)
    return max_pool(y) if pool else y


def max_pool(x: Array) -> Array:
    """Maximum over 2 x 2 pixels with stride 2.

    The code takes the maximum of slices. On a CPU its gradient is much cheaper than that of a windowed reduction.

    Args:
      x: `[B, H, W, C]`. An odd last row or column is dropped.

    Returns:
      `[B, H // 2, W // 2, C]`.
    """
    height, width = (size // 2 * 2 for size in x.shape[1:3])
    x = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
    return jnp.maximum(x[:, :, 0:width:2], x[:, :, 1:width:2])


def upsampled_convolution(x: Array, kernel: Array) -> Array:
    """Doubles the pixels of images in both directions, then convolves 3 x 3 and keeps the size.

    Both steps are done at once. Two of three taps in a row fall on the same small pixel. So the four pixels of the
    result around a corner of a small pixel depend on a 2 x 2 window of small pixels, with summed taps. This takes 16
    products for each small pixel instead of 36.

    Args:
      x: The small images, `[B, H, W, C]`.
      kernel: `[3, 3, C, F]`.

    Returns:
      `[B, 2 H, 2 W, F]`.
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]
    # taps[a, t, k] is 1 if tap k of the result's pixel a falls on small pixel t. 0 is before the corner, 1 after it.
    taps = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], kernel.dtype)
    corner = jnp.einsum("atk,bsl,klcf->tscabf", taps, taps, kernel).reshape(2, 2, -1, 4 * features)
    y = convolution(x, corner, 1, 1).reshape(batch, height + 1, width + 1, 2, 2, features)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, 2 * width + 2, features)
    return y[:, 1:-1, 1:-1]


def _row_products(x: Array, kernel: Array, pool: bool) -> Array:
    """A convolution of stride 1 without padding, as products of parts of image rows with a banded (Toeplitz) matrix.

    A part of the result's row has b pixels. It depends on b + w - 1 pixels of h rows of the image. So the product is
    wide enough to be fast even with few channels. Zeros outside the band make it (b + w - 1) / w times as many
    multiplications as needed. `max_pool` follows if `pool` is set.
    """
    height, width, channels, features = kernel.shape
    batch, rows, columns = x.shape[0], x.shape[1] - height + 1, x.shape[2] - width + 1
    stride = 2 if pool else 1
    rows, columns = rows // stride * stride, columns // stride * stride
    sizes = [size for size in range(stride, columns + 1, stride) if columns % size == 0]
    part = next((size for size in sizes if size * features >= _PRODUCT_WIDTH), columns)
    # Even columns come first and odd ones follow. So the pool compares long stretches of memory.
    order = np.arange(part).reshape(-1, stride).T.ravel()
    shifts = np.stack([np.eye(part + width - 1, part, -shift)[:, order] for shift in range(width)])
    band = jnp.einsum("ijkf,jvc->ivkcf", kernel, shifts.astype(kernel.dtype)).reshape(-1, part * features)
    x, parts = x.reshape(*x.shape[:2], -1), []
    for first in range(0, columns * channels, part * channels):
        pixels = slice(first, first + (part + width - 1) * channels)
        y = product(jnp.concatenate([x[:, row : row + rows, pixels] for row in range(height)], axis=-1), band)
        if pool:
            y = y.reshape(batch, rows // 2, 2, 2, -1)
            y = jnp.maximum(y[:, :, 0], y[:, :, 1])
            y = jnp.maximum(y[:, :, 0], y[:, :, 1])
        parts.append(y)
    return jnp.concatenate(parts, axis=-1).reshape(batch, rows // stride, columns // stride, features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, strides: int, padding: int) -> Array:
    """A convolution whose gradients are computed by forward convolutions of stride 1 and by matrix products."""
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
    """The gradient with respect to an input of this `shape`, `[B, H, W, C]`.

    Input pixels at the same place modulo the strides are a phase. All pixels of a phase meet the same taps of the
    kernel. The gradient of a phase is the cotangent convolved with these taps in reverse. The phases then interleave.
    """
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
    """The gradient with respect to a kernel of this `shape`, by one matrix product for each row of the kernel.

    The products take a few images at a time, whose pixels stay in the cache. Their results are `[F, w C]`, because a
    wide result is faster than a high one.
    """
    height, width, channels, features = shape
    batch, rows, columns, _ = cotangent.shape
    x = _pad(x, [(padding, padding)] * 2)
    block = _images_in_cache(batch, x.shape[1] * columns * width * channels * x.dtype.itemsize)

    def add(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        x, cotangent = images
        cotangents = cotangent.swapaxes(0, 1).reshape(-1, features)
        products = [
            lax.dot_general(cotangents, tap, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
            for tap in _kernel_rows(x, height, width, rows, columns, strides)
        ]
        return total + jnp.stack(products), None

    images = x.reshape(-1, block, *x.shape[1:]), cotangent.reshape(-1, block, *cotangent.shape[1:])
    zeros = jnp.zeros((height, features, width * channels), jnp.float32)
    total, _ = lax.scan(add, zeros, images)
    return total.reshape(height, features, width, channels).transpose(0, 2, 3, 1).astype(x.dtype)


def _convolve(x: Array, kernel: Array, strides: int, pads: Sequence[tuple[int, int]]) -> Array:
    """XLA's own convolution, except for bf16 on a CPU, where XLA would convolve in float32."""
    if jax.default_backend() == "cpu" and x.dtype == jnp.bfloat16:
        return _column_products(_pad(x, pads), kernel, strides)
    # Negative padding is cut off first, because XLA's CPU kernel would read the dropped pixels.
    x = _pad(x, [(min(low, 0), min(high, 0)) for low, high in pads])
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    rows = x.shape[1] - kernel.shape[0] + 1
    if jax.default_backend() == "cpu" and strides == 1 and pads == [(0, 0)] * 2 and x.shape[1] > rows >= _MANY_ROWS:
        # Without any padding, XLA's CPU backend chooses a kernel of a third of the speed if there are many images.
        return lax.conv_general_dilated(x, kernel, (1, 1), [(0, 1), (0, 0)], dimension_numbers=_NHWC)[:, :rows]
    return lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=_NHWC)


def _column_products(x: Array, kernel: Array, strides: int) -> Array:
    """A convolution without padding, as one matrix product for each row of the kernel, a few images at a time."""
    height, width, channels, features = kernel.shape
    batch, rows_in, columns_in, _ = x.shape
    rows, columns = ((size - side) // strides + 1 for size, side in ((rows_in, height), (columns_in, width)))
    block = _images_in_cache(batch, rows_in * columns * width * channels * x.dtype.itemsize)

    def images(x: Array) -> Array:
        y = sum(
            _summed_in_float32(tap, weights.reshape(-1, features))
            for tap, weights in zip(_kernel_rows(x, height, width, rows, columns, strides), kernel, strict=True)
        )
        return jnp.reshape(y, (rows, block, columns, features)).astype(x.dtype).swapaxes(0, 1)

    return lax.map(images, x.reshape(-1, block, *x.shape[1:])).reshape(batch, rows, columns, features)


def _kernel_rows(x: Array, height: int, width: int, rows: int, columns: int, strides: int) -> list[Array]:
    """For each of the kernel's h rows, the pixels of x that it meets, `[H' B W', w C]`.

    The w pixels are side by side. The axis of image rows comes first, so that the result of each row of the kernel is
    contiguous in memory.
    """
    x = x.swapaxes(0, 1)
    shifted = [x[:, :, shift : shift + strides * (columns - 1) + 1 : strides] for shift in range(width)]
    side_by_side = jnp.concatenate(shifted, axis=-1)
    taps = [side_by_side[row : row + strides * (rows - 1) + 1 : strides] for row in range(height)]
    return [tap.reshape(-1, tap.shape[-1]) for tap in taps]


def _images_in_cache(batch: int, image_bytes: int) -> int:
    """The largest divisor of `batch` for which so many images of this size fit into the cache, at least 1."""
    limit = max(_COLUMN_BYTES // image_bytes, 1)
    return max(size for size in range(1, batch + 1) if batch % size == 0 and size <= limit)


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
