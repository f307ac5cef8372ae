"""Image sets in folders, with one folder for each class: Tiny-ImageNet, 12 classes of ImageNet, and a user's own.

The layout is `train/<class>/*.png`, with `test` or `val` beside `train`. A class's folder may have subfolders. Images
may have any format that Pillow reads. A user's own set may lack `train`.
Tiny-ImageNet needs no conversion: its layout is `train/<class>/images/*.JPEG`, and `val/images/*.JPEG` with
`val/val_annotations.txt`.
"""

import dataclasses
import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cake_jax.data import cache
from cake_jax.data.source import NO_TRAINING_INPUTS, Location
from cake_jax.errors import printable
from cake_jax.files import check_unpacked, leads_outside, read
from cake_jax.types import CakeError, CakeWarning, DataSpec, Examples, first_line

# A specification is measured on this many training images at most, the first of a fixed shuffle.
MAX_MEASURED = 10_000
_ANNOTATIONS = "val_annotations.txt"
# The formats of Pillow whose files are programs: Ghostscript would run them.
_PROGRAMS = ("EPS",)
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")


class _Split(NamedTuple):
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


@dataclasses.dataclass(frozen=True)
class Folder:
    """A `Source` of images in folders.

    Attributes:
      subfolder: Folder below `Location.data_dir` that holds the splits. Empty if `data_dir` holds them itself.
      known_spec: The specification. Images are scaled and cut to its size, and converted to colour. None measures it.
      test_splits: Names of the test split's folder. The first that exists is read.
    """

    subfolder: str
    known_spec: DataSpec | None
    test_splits: tuple[str, str]

    @property
    def measured(self) -> bool:
        """Whether the specification is measured."""
        return self.known_spec is None

    def spec(self, location: Location) -> DataSpec:
        """The specification.

        A measured one has the size of the images, and the mean and standard deviation of at most `MAX_MEASURED`
        training images. It is cached until a file changes. Without training images, the test images are measured.
        """
        if self.known_spec is not None:
            return self.known_spec
        train, test = self._splits(location)
        if not train.files:
            warnings.warn(f"dataset.data_dir: {NO_TRAINING_INPUTS}", CakeWarning, stacklevel=2)
            train = test

        def measure() -> DataSpec:
            rows = np.random.default_rng(0).permutation(len(train.files))[:MAX_MEASURED]
            images = _read(train, location.image_size, 0, np.sort(rows))
            mean, std = _mean_and_std(images)
            if std.min() < 1e-6:
                raise CakeError(
                    f"dataset.data_dir: the training images in {train.root} have a channel of one constant value"
                )
            return DataSpec(
                images.shape[1:],
                len(train.classes),
                tuple(mean.round(4).tolist()),
                tuple(std.round(4).clip(1e-4).tolist()),
                0.0,
                1.0,
                tuple(map(printable, train.classes)),
            )

        return cache.spec(cache.path_of("folder-spec", _state(train, location.image_size, 0), "json"), measure)

    def check(self, location: Location) -> None:
        """Refuses a folder if a split has no images, or if the splits have different classes."""
        self._splits(location)

    def train_size(self, location: Location) -> int:
        """The number of training images. Counts files, and reads none."""
        return len(self._splits(location)[0].files)

    def load(self, location: Location, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training and test images `[n, H, W, C]` in [0, 1] with labels; see `Source.load`."""
        train, test = self._splits(location)
        size, channels = location.image_size, 0
        if self.known_spec is not None:
            size, channels = self.known_spec.shape[0], 3
        test_images = _read(test, size, channels, np.arange(len(test.files)))
        train_images = _read(train, size, channels, train_rows) if len(train_rows) else test_images[:0]
        train_x, test_x = (images.astype(np.float32) / np.float32(255) for images in (train_images, test_images))
        if train_x.shape[1:] != test_x.shape[1:]:
            raise CakeError(
                f"dataset.data_dir: images in {test.root} have shape {test_x.shape[1:]}, but images in {train.root} "
                f"have shape {train_x.shape[1:]}; convert one split"
            )
        return (train_x, train.labels[train_rows]), (test_x, test.labels)

    def _splits(self, location: Location) -> tuple[_Split, _Split]:
        """The training and the test split."""
        if not location.data_dir:
            content = f"a folder {self.subfolder} with train/" if self.subfolder else "train/"
            raise CakeError(f"dataset.data_dir: empty; name the folder that holds {content} and test/ or val/")
        root = Path(location.data_dir).expanduser() / self.subfolder
        test_root = next((root / name for name in self.test_splits if (root / name).is_dir()), None)
        if not (root / "train").is_dir() and (test_root is None or not self.measured):
            raise CakeError(
                f"dataset.data_dir: no folder {root / 'train'}; put training images in {root / 'train'}/<class>/"
            )
        if test_root is None:
            raise CakeError(f"dataset.data_dir: no folder {root / 'test'} or {root / 'val'}; one must hold test images")
        listed = _listed(location.class_names)
        has_train = (root / "train").is_dir()
        train = _split(root, "train" if has_train else test_root.name, listed, says_skipped=self.measured)
        if listed and train.classes != listed:
            only = printable(sorted(set(listed) ^ set(train.classes))[0])
            raise CakeError(
                f"dataset.class_names: only one of {location.class_names} and {train.root} has the class '{only}'"
            )
        test = _split(root, test_root.name, train.classes, says_skipped=self.measured) if has_train else train
        if train.classes != test.classes:
            only = printable(sorted(set(train.classes) ^ set(test.classes))[0])
            raise CakeError(f"dataset.data_dir: only one of {train.root} and {test.root} has the class '{only}'")
        found = len(train.classes)
        if self.known_spec is not None and found != self.known_spec.num_classes:
            raise CakeError(f"dataset.data_dir: {train.root} has {found} classes, not {self.known_spec.num_classes}")
        if found < 2:
            raise CakeError(f"dataset.data_dir: {train.root} has {found} classes, not two or more")
        return train if has_train else train._replace(files=(), labels=train.labels[:0]), test


def _split(folder: Path, split: str, classes: tuple[str, ...], *, says_skipped: bool) -> _Split:
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
        images = [_inside(folder, path) for path in inside if path.suffix.lower() in _suffixes()]
        others += [path for path in inside if path.suffix.lower() not in _suffixes()]
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
    return _Split(root, tuple(files), np.array(labels, np.int32), found)


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


def _listed(path: str) -> tuple[str, ...]:
    """The class names in a file. None if `path` is empty."""
    if not path:
        return ()
    try:
        lines = read(Path(path).expanduser()).decode().splitlines()
    except (OSError, ValueError) as error:
        raise CakeError(f"dataset.class_names: {path} cannot be read: {first_line(error)}") from error
    return tuple(line.strip() for line in lines if line.strip())


@functools.cache
def _suffixes() -> frozenset[str]:
    """The suffixes of images in `_formats`, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow reads without running a program. Pillow looks at a file's content, not at its name."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _PROGRAMS)


def _annotated(folder: Path, root: Path, classes: tuple[str, ...]) -> _Split:
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
    present = tuple(name for place, name in enumerate(classes) if place in set(labels))
    return _Split(root, tuple(files), np.array(labels, np.int32), present)


def _read(split: _Split, image_size: int, channels: int, rows: np.ndarray) -> np.ndarray:
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
    path = cache.path_of(f"folder-{split.root.name}", _state(split, image_size, channels), "npz")
    cached = cache.read_examples(path, count)
    if cached:
        return cached[0][rows]
    first, *others = [split.files[row] for row in rows]
    one = _decode(first, image_size, channels)
    if not image_size:
        sizes = [os.stat(file).st_size for file in (first, *others)]
        check_unpacked(split.root, len(sizes) * one.nbytes, sum(sizes), "set dataset.image_size")

    def like_the_first(file: Path) -> np.ndarray:
        image = _decode(file, image_size, channels, None if image_size else (first, one.shape[1::-1]))
        if image.shape != one.shape:
            kinds = {1: "grey", 3: "coloured"}
            raise CakeError(
                f"{file}: {kinds[image.shape[-1]]}, but {first} is {kinds[one.shape[-1]]}; convert one of them"
            )
        return image

    with ThreadPoolExecutor() as pool:
        images = [one, *pool.map(like_the_first, others)]
    stacked = np.stack(images)
    if np.array_equal(rows, np.arange(count)):
        cache.write_examples(path, stacked, split.labels)
    return stacked


def _mean_and_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[C]` of pixels in [0, 1], given uint8 images."""
    # Counting the 256 values avoids a float copy of all images.
    channels = range(images.shape[-1])
    counts = np.zeros((images.shape[-1], 256))
    for image in images:
        counts += [np.bincount(image[..., c].ravel(), minlength=256) for c in channels]
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))


def _decode(file: Path, image_size: int, channels: int, like: tuple[Path, tuple[int, ...]] | None = None) -> np.ndarray:
    """A uint8 image `[H, W, C]`. It is decoded only if its size is allowed.

    Args:
      file: The image.
      image_size: See `_read`.
      channels: See `_read`.
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


def _state(split: _Split, image_size: int, channels: int) -> str:
    """A text that changes with every file of the split."""
    stats = [(str(file), os.stat(file)) for file in split.files]
    lines = [f"{name} {about.st_size} {about.st_mtime_ns}" for name, about in stats]
    return "\n".join([f"{split.root.resolve()} {image_size} {channels}", *lines])


# Means and standard deviations are the figures in common use. IMAGENET12 has those of the whole of ImageNet.
# The test images of Tiny-ImageNet and ImageNet have no labels, so `val` comes first.
TINY_IMAGENET = Folder(
    "tiny_imagenet",
    DataSpec((64, 64, 3), 200, (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), 0.0, 1.0),
    ("val", "test"),
)
IMAGENET12 = Folder(
    "imagenet12",
    DataSpec((64, 64, 3), 12, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.0, 1.0),
    ("val", "test"),
)
FOLDER = Folder("", None, ("test", "val"))
