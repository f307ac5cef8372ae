"""Image sets from a folder with a folder for each class: Tiny-ImageNet, a 12-class ImageNet, and a user's own.

`train/<class>/*.png`, with `test` or `val` beside it; below a class there may be more folders. Tiny-ImageNet's own
layout is taken as it is unpacked: `train/<class>/images/*.JPEG`, and `val/images` named by `val/val_annotations.txt`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cake_jax.data import cache
from cake_jax.types import CakeError, DataSpec, Examples, first_line

# Figures in common use; for imagenet12 those of the whole of ImageNet.
SPECS = {
    "tiny_imagenet": DataSpec((64, 64, 3), 200, (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), 0.0, 1.0),
    "imagenet12": DataSpec((64, 64, 3), 12, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.0, 1.0),
}
OWN = "folder"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_ANNOTATIONS = "val_annotations.txt"
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")
# A user's set is measured on so many training images, of a fixed shuffle.
_MEASURED = 10_000


class Split(NamedTuple):
    """The images of a split, not yet read.

    Attributes:
      root: Folder of the split.
      files: N paths, sorted within a class.
      labels: Places in `classes`, `[N]` int32.
      classes: Names of the classes' folders, sorted.
    """

    root: Path
    files: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]


def train_size(name: str, data_dir: str) -> int:
    """Number of training images, which are not read."""
    return len(_splits(name, data_dir)[0].files)


def check(name: str, data_dir: str) -> None:
    """Refuses a folder without images in both splits, or whose splits have different classes. No image is read."""
    _splits(name, data_dir)


def measure(data_dir: str, image_size: int) -> DataSpec:
    """The specification of a user's own folder: the size of its images, and mean and deviation of training pixels.

    Kept in the user's cache folder for as long as no file changes.
    """
    train, _ = _splits(OWN, data_dir)

    def found() -> DataSpec:
        rows = np.random.default_rng(0).permutation(len(train.files))[:_MEASURED]
        images = _read(train, image_size, 0, np.sort(rows))
        mean, std = _figures(images)
        if std.min() < 1e-6:
            raise CakeError(f"dataset.data_dir: a channel of the training images in {train.root} has one value only")
        return DataSpec(
            images.shape[1:],
            len(train.classes),
            tuple(mean.round(4).tolist()),
            tuple(std.round(4).clip(1e-4).tolist()),
            0.0,
            1.0,
            train.classes,
        )

    return cache.spec(cache.path_of("folder-spec", _state(train, image_size, 0), "json"), found)


def load(name: str, data_dir: str, image_size: int, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Pixels in [0, 1] and labels of the given training rows and of the test split; see `cake_jax.data.load`."""
    train, test = _splits(name, data_dir)
    channels = 0
    if name in SPECS:
        image_size, channels = SPECS[name].shape[0], 3
    parts = []
    for split, rows in ((train, train_rows), (test, np.arange(len(test.files)))):
        images = _read(split, image_size, channels, rows)
        parts.append((images.astype(np.float32) / np.float32(255), split.labels[rows]))
    (train_x, _), (test_x, _) = parts
    if train_x.shape[1:] != test_x.shape[1:]:
        raise CakeError(
            f"dataset.data_dir: images of {test_x.shape[1:]} in {test.root}, of {train_x.shape[1:]} in {train.root}"
        )
    return parts[0], parts[1]


def _splits(name: str, data_dir: str) -> tuple[Split, Split]:
    """Training and test split."""
    if not data_dir:
        raise CakeError("dataset.data_dir: empty; name the folder that holds train/ and test/ or val/" + _below(name))
    root = Path(data_dir).expanduser() / ("" if name == OWN else name)
    if not (root / "train").is_dir():
        raise CakeError(
            f"dataset.data_dir: no folder {root / 'train'}; '{name}' needs train/<class>/*.png" + _below(name)
        )
    # The test images of Tiny-ImageNet and of ImageNet have no labels.
    for_test = ("test", "val") if name == OWN else ("val", "test")
    second = next((root / split for split in for_test if (root / split).is_dir()), None)
    if second is None:
        raise CakeError(f"dataset.data_dir: neither {root / 'test'} nor {root / 'val'} is there")
    train = _split(root / "train")
    test = _split(second, train.classes)
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes))[0]
        raise CakeError(f"dataset.data_dir: class '{only}' is in one of {train.root} and {test.root} only")
    wanted = SPECS[name].num_classes if name in SPECS else None
    if wanted not in (None, len(train.classes)) or len(train.classes) < 2:
        raise CakeError(
            f"dataset.data_dir: {train.root} holds {len(train.classes)} classes, not {wanted or 'two or more'}"
        )
    return train, test


def _below(name: str) -> str:
    return "" if name == OWN else f", in a folder named {name}"


def _split(root: Path, classes: tuple[str, ...] = ()) -> Split:
    """Finds the images of a split; `classes` are those that annotations may name."""
    if (root / _ANNOTATIONS).is_file():
        return _annotated(root, classes)
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(found):
        images = sorted(path for path in folder.rglob("*") if _is_image(path))
        if not images:
            raise CakeError(f"dataset.data_dir: no images in {folder}; delete the folder, or add some")
        files += images
        labels += [label] * len(images)
    if not files:
        raise CakeError(f"dataset.data_dir: no images in {root}; it needs a folder for each class")
    return Split(root, tuple(files), np.array(labels, np.int32), tuple(folder.name for folder in found))


def _annotated(root: Path, classes: tuple[str, ...]) -> Split:
    """A split whose images are in one folder, with lines `file<tab>class` beside it."""
    path = root / _ANNOTATIONS
    files, labels = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, _, rest = line.partition("\t")
        label, file = rest.split("\t")[0].strip(), root / "images" / name
        if label not in classes or not file.is_file():
            raise CakeError(f"{path}: line {number} names no image, or no class of the training images")
        files.append(file)
        labels.append(classes.index(label))
    if not files:
        raise CakeError(f"{path}: empty")
    present = tuple(name for place, name in enumerate(classes) if place in set(labels))
    return Split(root, tuple(files), np.array(labels, np.int32), present)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read(split: Split, image_size: int, channels: int, rows: np.ndarray) -> np.ndarray:
    """uint8 images `[n, H, W, C]` of the given rows; all of a split are kept in the cache.

    Args:
      split: What `_splits` found.
      image_size: Side to scale to, by the shorter side and a cut from the middle; 0 for images of one size.
      channels: 1 or 3 to convert to; 0 for images that are all grey or all coloured.
      rows: Row numbers.
    """
    count = len(split.files)
    path = cache.path_of(f"folder-{split.root.name}", _state(split, image_size, channels), "npz")
    cached = cache.examples(path, count)
    if cached:
        return cached[0][rows]
    files = [split.files[row] for row in rows]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda file: _decode(file, image_size, channels), files))
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise CakeError(_difference(files[0], images[0], file, image))
    stacked = np.stack(images)
    if np.array_equal(rows, np.arange(count)):
        cache.keep_examples(path, stacked, split.labels)
    return stacked


def _figures(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `[C]` of pixels in [0, 1], from counts of the 8-bit values: no second copy of the images."""
    channels = range(images.shape[-1])
    counts = np.zeros((images.shape[-1], 256))
    for image in images:
        counts += [np.bincount(image[..., c].ravel(), minlength=256) for c in channels]
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))


def _difference(first: Path, one: np.ndarray, second: Path, other: np.ndarray) -> str:
    if one.shape[-1] != other.shape[-1]:
        kinds = {1: "grey", 3: "coloured"}
        return f"{second}: {kinds[other.shape[-1]]}, but {first} is {kinds[one.shape[-1]]}; convert one of them"
    sizes = ["{1} x {0}".format(*image.shape) for image in (other, one)]
    return f"{second}: {sizes[0]} pixels, but {first} has {sizes[1]}; give a size in dataset.image_size"


def _decode(file: Path, image_size: int, channels: int) -> np.ndarray:
    """A uint8 image `[H, W, C]`."""
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode not in (*_GREY, *_COLOUR):
                raise CakeError(f"{file}: pixels of mode {image.mode}; convert it to 8-bit grey or RGB")
            grey = channels == 1 or (not channels and image.mode in _GREY)
            picture = image.convert("L" if grey else "RGB")
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(f"{file}: no readable image ({first_line(error)}); delete or replace it") from error
    if image_size:
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


def _state(split: Split, image_size: int, channels: int) -> str:
    """What changes with any file of the split."""
    stats = [(str(file), os.stat(file)) for file in split.files]
    lines = [f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in stats]
    return "\n".join([f"{split.root.resolve()} {image_size} {channels}", *lines])
