"""The operations that RandAugment and AutoAugment choose from, on one image `[H, W, C]` of pixels in [0, 1].

They do what Pillow's operations of the same names do to 8-bit images, which is how both papers define them; only those
that count or cut bits (`equalize`, `posterize`) round to 8 bits here.
"""

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

# Those that take a sign are symmetric about no change.
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
    """Does one operation, chosen while the program runs.

    Under `vmap` every example pays for every operation, so the five geometric ones share one resampling.

    Args:
      image: `[H, W, C]`, C 1 or 3.
      operation: Place in `OPERATIONS`, int.
      level: Strength from 0, none, to 1, the highest that the policies know; negative for the other sign of `SIGNED`.
        Operations after `solarize` have no strength.

    Returns:
      The new image, in [0, 1].
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
    """`matrix` and `offset` of `warp` for an operation; those of no motion for one that is not geometric."""
    height, width, _ = shape
    shear, angle, none = 0.3 * level, jnp.deg2rad(30.0 * level), jnp.zeros(())
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre = jnp.array([height / 2, width / 2])
    turn = jnp.array([[cos, sin], [-sin, cos]])
    still = jnp.eye(2)
    # The papers give shifts for images of 331 pixels.
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
    """Resamples by the nearest pixel, black from outside.

    Args:
      image: `[H, W, C]`.
      matrix: `[2, 2]`.
      offset: `[2]`.

    Returns:
      `[H, W, C]`; the point (y, x), in pixels from the upper left corner, is taken from `matrix @ (y, x) + offset`.
    """
    # dm_pix counts from the middle of the first pixel.
    shift = matrix.sum(axis=1) / 2 + offset - 0.5
    full = jnp.zeros((3, 4)).at[:2, :2].set(matrix).at[:2, 3].set(shift).at[2, 2].set(1.0)
    with jax.default_matmul_precision("highest"):  # on accelerators coordinates would be off by a part of a pixel
        return dm_pix.affine_transform(image, full, order=0, mode="constant")


def brightness(image: Array, factor: Array | float) -> Array:
    """Between black (factor 0), the image (1) and beyond."""
    return _blend(jnp.zeros_like(image), image, factor)


def color(image: Array, factor: Array | float) -> Array:
    """Between the grey image (factor 0), the image (1) and beyond; a grey image stays as it is."""
    return _blend(_grey(image), image, factor)


def contrast(image: Array, factor: Array | float) -> Array:
    """Between the mean brightness (factor 0), the image (1) and beyond."""
    return _blend(_grey(image).mean(), image, factor)


def sharpness(image: Array, factor: Array | float) -> Array:
    """Between a smoothed image (factor 0), the image (1) and beyond; the outermost pixels stay as they are."""
    height, width, _ = image.shape
    windows = [image[y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)]
    inside = (sum(windows) + 4 * windows[4]) / 13
    return _blend(image.at[1:-1, 1:-1].set(inside), image, factor)


def posterize(image: Array, bits: Array | float) -> Array:
    """The highest `bits` of each 8-bit value."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(jnp.round(255 * image) / step) * step / 255


def autocontrast(image: Array) -> Array:
    """Each channel stretched to the whole range; one of a single value stays as it is."""
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1.0), image)


def equalize(image: Array) -> Array:
    """Each channel with its histogram of 8-bit values made flat, by the integer rule of Pillow."""

    def channel(values: Array) -> Array:
        counts = jnp.zeros(256, jnp.int32).at[values].add(1)
        step = (values.size - counts[values.max()]) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.minimum(table, 255)[values], values)

    values = jnp.round(255 * image).astype(jnp.int32)
    return jax.vmap(channel, in_axes=-1, out_axes=-1)(values) / 255


def _grey(image: Array) -> Array:
    """Brightness `[H, W, 1]`."""
    return dm_pix.rgb_to_grayscale(image) if image.shape[-1] == 3 else image


def _blend(first: Array, second: Array, factor: Array | float) -> Array:
    return jnp.clip(first + factor * (second - first), 0.0, 1.0)
