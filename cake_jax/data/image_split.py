"""The images of a split of a data set, in folders: how they are found, and how they are read."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cake_jax.data import cache
from cake_jax.data.image_files import decode, suffixes
from cake_jax.errors import printable
from cake_jax.files import check_unpacked, leads_outside, read
from cake_jax.types import CakeError, CakeWarning, Examples, first_line

_ANNOTATIONS = "val_annotations.txt"


class Split(NamedTuple):
    """The images of a split, not yet read.

    Attributes:
      root: Folder of the split.
      files: N paths, sorted within a class.
      labels: Places in `classes`, `[N]` int32.
      classes: Names of the classes' folders, in the order of their labels.
    """

    root: Path
    files: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]


def find(folder: Path, split: str, classes: tuple[str, ...], *, says_skipped: bool) -> Split:
    """Finds the images of a split. None lies outside of `folder`.

    Args:
      folder: Folder of the data set.
      split: Name of the split's folder in it.
      classes: Names of the classes in order, or empty if they are not known yet.
      says_skipped: Whether a `CakeWarning` counts the files that are no images.
    """
    root = _inside(folder, folder / split)
    if (root / _ANNOTATIONS).is_file():
        return _annotated(folder, root, classes)
    found = _in_order(
        [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")], classes
    )
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(found):
        place = _inside(folder, root / name)
        inside = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
        images = [_inside(folder, path) for path in inside if path.suffix.lower() in suffixes()]
        others += [path for path in inside if path.suffix.lower() not in suffixes()]
        if not images:
            raise CakeError(f"dataset.data_dir: no images in {root / name}; delete the folder or add images")
        files += images
        labels += [label] * len(images)
    if not files:
        raise CakeError(f"dataset.data_dir: no images in {root}; it needs a folder for each class")
    if others and says_skipped:
        message = (
            f"dataset.data_dir: {len(others)} files in {root} are skipped, because they are no images that Pillow "
        )
        warnings.warn(f"{message}reads: {printable(str(others[0]))}", CakeWarning, stacklevel=2)
    shown = list(map(printable, found))
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise CakeError(f"dataset.data_dir: two classes in {root} have the name '{twice}'; rename one of their folders")
    return Split(root, tuple(files), np.array(labels, np.int32), found)


def _inside(folder: Path, path: Path) -> Path:
    """Returns `path`, unless it is a link that leads out of `folder`."""
    if path.is_symlink() and leads_outside(path, folder):
        raise CakeError(f"{path}: leads out of {folder}; if you trust it, put the files themselves there (cp -rL)")
    return path


def _in_order(names: list[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes' folders in the order of `classes`, or of their numbers, or of the alphabet."""
    if set(names) == set(classes):
        return classes
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def listed(path: str) -> tuple[str, ...]:
    """The class names in a file. Empty if `path` is empty."""
    if not path:
        return ()
    try:
        lines = read(Path(path).expanduser()).decode().splitlines()
    except (OSError, ValueError) as error:
        raise CakeError(f"dataset.class_names: {path} cannot be read: {first_line(error)}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _annotated(folder: Path, root: Path, classes: tuple[str, ...]) -> Split:
    """Finds the images of a split in one folder, with an annotation file of lines `file<tab>class`."""
    path = root / _ANNOTATIONS
    if not classes:
        raise CakeError(f"dataset.class_names: empty; without train/, it must name a file of the classes in {path}")
    try:
        lines = read(_inside(folder, path)).decode().splitlines()
    except UnicodeDecodeError as error:
        raise CakeError(f"{path}: not a text: {first_line(error)}") from error
    images = _inside(folder, root / "images")
    files, labels = [], []
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        label, file = rest.split("\t")[0].strip(), images / name
        if Path(name).name != name:
            raise CakeError(f"{path}: line {number} must name a file in {images}")
        if label not in classes or not file.is_file():
            raise CakeError(f"{path}: line {number} must name an existing image and a class of the training images")
        files.append(_inside(folder, file))
        labels.append(classes.index(label))
    if not files:
        raise CakeError(f"{path}: empty; it must name the image files and their classes")
    present = tuple(classes[label] for label in sorted(set(labels)))
    return Split(root, tuple(files), np.array(labels, np.int32), present)


def read_images(split: Split, image_size: int, channels: int, rows: np.ndarray) -> np.ndarray:
    """Reads some images of a split. If all are decoded, they are cached.

    Args:
      split: The split.
      image_size: Side in pixels. The shorter side is scaled to it, and the middle is cut out. 0 requires images of one
        size.
      channels: 1 converts to grey, 3 to colour. 0 requires images that are all grey or all coloured.
      rows: Row numbers, `[n]` int.

    Returns:
      `[n, H, W, C]` uint8.
    """
    count = len(split.files)
    path = cache.path_of(f"folder-{split.root.name}", state(split, image_size, channels), "npz")

    def decoded() -> Examples:
        return _decoded(split, image_size, channels, rows), split.labels[rows]

    return cache.examples(path, count, rows, decoded)[0]


def _decoded(split: Split, image_size: int, channels: int, rows: np.ndarray) -> np.ndarray:
    """Reads some images of a split from their files."""
    first, *others = [split.files[row] for row in rows]
    one = decode(first, image_size, channels)
    if not image_size:
        sizes = [os.stat(file).st_size for file in (first, *others)]
        check_unpacked(split.root, len(sizes) * one.nbytes, sum(sizes), "set dataset.image_size")

    def like_the_first(file: Path) -> np.ndarray:
        image = decode(file, image_size, channels, None if image_size else (first, one.shape[1::-1]))
        if image.shape != one.shape:
            kinds = {1: "grey", 3: "coloured"}
            raise CakeError(
                f"{file}: {kinds[image.shape[-1]]}, but {first} is {kinds[one.shape[-1]]}; convert one of them"
            )
        return image

    with ThreadPoolExecutor() as pool:
        images = [one, *pool.map(like_the_first, others)]
    return np.stack(images)


def state(split: Split, image_size: int, channels: int) -> str:
    """A text that changes with every file of the split."""
    stats = [(str(file), os.stat(file)) for file in split.files]
    lines = [f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in stats]
    return "\n".join([f"{split.root.resolve()} {image_size} {channels}", *lines])
