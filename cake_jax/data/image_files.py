"""Image files: which ones are read, and how one is decoded."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cake_jax.types import CakeError, first_line

# The formats of Pillow whose files are programs: Ghostscript would run them.
_PROGRAMS = ("EPS",)
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of images in `_formats`, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow reads without running a program. Pillow looks at a file's content, not at its name."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _PROGRAMS)


def decode(file: Path, image_size: int, channels: int, like: tuple[Path, tuple[int, ...]] | None = None) -> np.ndarray:
    """A uint8 image `[H, W, C]`. It is decoded only if its size is allowed.

    Args:
      file: The image.
      image_size: Side in pixels. The shorter side is scaled to it, and the middle is cut out. 0 keeps the size.
      channels: 1 converts to grey, 3 to colour. 0 keeps grey and coloured images as they are.
      like: Another image, and the width and height that this one must have too.
    """
    try:
        with Image.open(file, "r", _formats()) as image:
            shown = "{} x {} pixels".format(*image.size)
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise CakeError(f"{file}: {shown}, more than {Image.MAX_IMAGE_PIXELS:,}; make it smaller")
            if like and image.size != like[1]:
                raise CakeError(
                    f"{file}: {shown}, but {like[0]} has {'{} x {}'.format(*like[1])}; set dataset.image_size"
                )
            image.load()
            if image.mode not in (*_GREY, *_COLOUR):
                raise CakeError(f"{file}: pixels of mode {image.mode}; convert the image to 8-bit grey or RGB")
            grey = channels == 1 or (not channels and image.mode in _GREY)
            picture = image.convert("L" if grey else "RGB")
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(f"{file}: not a readable image ({first_line(error)}); delete or replace it") from error
    if image_size:
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


def mean_and_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[C]` of pixels in [0, 1], given uint8 images."""
    # Counting the 256 values avoids a float copy of all images.
    channels = range(images.shape[-1])
    counts = np.zeros((images.shape[-1], 256))
    for image in images:
        counts += [np.bincount(image[..., c].ravel(), minlength=256) for c in channels]
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
