"""The operations that RandAugment and AutoAugment choose from, on one image `[H, W, C]` of pixels in [0, 1].

Both papers define them by Pillow's operations of the same names on 8-bit images. Here only `equalize` and `posterize`,
which count or cut bits, round to 8 bits.
"""

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

# Operations that take a negative level too. A level of 0 changes nothing.
SIGNED = (
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
)
OPERATIONS = ("identity", *SIGNED, "posterize", "solarize", "autocontrast", "equalize", "invert")


def perform(image: Array, operation: Array, level: Array) -> Array:
    """Performs one operation, which is chosen at run time.

    Under `vmap` every image costs as much as all operations together. So the five geometric operations share one
    resampling.

    Args:
      image: `[H, W, C]` in [0, 1], C 1 or 3.
      operation: Position in `OPERATIONS`, int.
      level: Strength, from 0 for no change to 1 for the highest of the policies. Operations in `SIGNED` also take
        levels down to -1. The first operation and those after `solarize` ignore it.

    Returns:
      The new image `[H, W, C]` in [0, 1].
    """
    image = warp(image, *_motion(image.shape, operation, level))
    factor = 1 + 0.9 * level
    colour = {
        "brightness": lambda x: brightness(x, factor),
        "color": lambda x: color(x, factor),
        "contrast": lambda x: contrast(x, factor),
        "sharpness": lambda x: sharpness(x, factor),
        "posterize": lambda x: posterize(x, 8 - jnp.round(4 * level)),
        "solarize": lambda x: dm_pix.solarize(x, 256 / 255 * (1 - level)),
        "autocontrast": autocontrast,
        "equalize": equalize,
        "invert": lambda x: 1 - x,
    }
    return jax.lax.switch(operation, [colour.get(name, lambda x: x) for name in OPERATIONS], image)


def _motion(shape: tuple[int, ...], operation: Array, level: Array) -> tuple[Array, Array]:
    """The `matrix` and `offset` of `warp` for an operation. They are those of no motion if it is not geometric."""
    height, width, _ = shape
    shear, angle, none = 0.3 * level, jnp.deg2rad(30.0 * level), jnp.zeros(())
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre = jnp.array([height / 2, width / 2])
    turn = jnp.array([[cos, sin], [-sin, cos]])
    still = jnp.eye(2)
    # The papers' shift is 150 pixels for images whose side is 331 pixels.
    shift = jnp.trunc(150 / 331 * level * jnp.array([height, width]))
    motions = {
        "shear_x": (still.at[1, 0].set(shear), jnp.zeros(2)),
        "shear_y": (still.at[0, 1].set(shear), jnp.zeros(2)),
        "translate_x": (still, jnp.stack([none, shift[1]])),
        "translate_y": (still, jnp.stack([shift[0], none])),
        "rotate": (turn, centre - jnp.matmul(turn, centre, precision="highest")),
    }
    chosen = [motions.get(name, (still, jnp.zeros(2))) for name in OPERATIONS]
    matrices, offsets = (jnp.stack(parts) for parts in zip(*chosen, strict=True))
    return matrices[operation], offsets[operation]


def warp(image: Array, matrix: Array, offset: Array) -> Array:
    """Resamples an image by an affine map and the nearest pixel. Points from outside the image are black.

    The point (y, x) of the result is the point `matrix @ (y, x) + offset` of the image. Coordinates are in pixels from
    the upper left corner.

    Args:
      image: `[H, W, C]`.
      matrix: `[2, 2]`.
      offset: `[2]`.

    Returns:
      `[H, W, C]`.
    """
    # dm_pix measures coordinates from the middle of the first pixel.
    shift = matrix.sum(axis=1) / 2 + offset - 0.5
    full = jnp.zeros((3, 4)).at[:2, :2].set(matrix).at[:2, 3].set(shift).at[2, 2].set(1.0)
    # At an accelerator's default precision, coordinates would be off by a part of a pixel.
    with jax.default_matmul_precision("highest"):
        return dm_pix.affine_transform(image, full, order=0, mode="constant")


def brightness(image: Array, factor: Array | float) -> Array:
    """Blends black (factor 0) and the image (factor 1). A factor above 1 extrapolates."""
    return _blend(jnp.zeros_like(image), image, factor)


def color(image: Array, factor: Array | float) -> Array:
    """Blends the grey image (factor 0) and the image (factor 1). An image of one channel does not change."""
    return _blend(_grey(image), image, factor)


def contrast(image: Array, factor: Array | float) -> Array:
    """Blends the mean brightness (factor 0) and the image (factor 1)."""
    return _blend(_grey(image).mean(), image, factor)


def sharpness(image: Array, factor: Array | float) -> Array:
    """Blends a smoothed image (factor 0) and the image (factor 1). The outermost pixels do not change."""
    height, width, _ = image.shape
    windows = [image[y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)]
    inside = (sum(windows) + 4 * windows[4]) / 13
    return _blend(image.at[1:-1, 1:-1].set(inside), image, factor)


def posterize(image: Array, bits: Array | float) -> Array:
    """Keeps the highest `bits` of each 8-bit value."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(jnp.round(255 * image) / step) * step / 255


def autocontrast(image: Array) -> Array:
    """Stretches each channel to the whole range. A channel of a single value does not change."""
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1.0), image)


def equalize(image: Array) -> Array:
    """Flattens the histogram of 8-bit values in each channel, by Pillow's integer rule."""

    def channel(values: Array) -> Array:
        counts = jnp.zeros(256, jnp.int32).at[values].add(1)
        step = (values.size - counts[values.max()]) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.minimum(table, 255)[values], values)

    values = jnp.round(255 * image).astype(jnp.int32)
    return jax.vmap(channel, in_axes=-1, out_axes=-1)(values) / 255


def _grey(image: Array) -> Array:
    """The brightness `[H, W, 1]` of an image."""
    return dm_pix.rgb_to_grayscale(image) if image.shape[-1] == 3 else image


def _blend(first: Array, second: Array, factor: Array | float) -> Array:
    return jnp.clip(first + factor * (second - first), 0.0, 1.0)
