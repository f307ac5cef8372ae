"""Image sets in folders, with one folder for each class: Tiny-ImageNet, 12 classes of ImageNet, and a user's own.

The layout is `train/<class>/*.png`, with `test` or `val` beside `train`. A class's folder may have subfolders. Images
may have any format that Pillow reads. A user's own set may lack `train`.
Tiny-ImageNet needs no conversion: its layout is `train/<class>/images/*.JPEG`, and `val/images/*.JPEG` with
`val/val_annotations.txt`.
"""

import dataclasses
import warnings
from pathlib import Path

import numpy as np

from cake_jax.data import cache, image_split
from cake_jax.data.image_files import mean_and_std
from cake_jax.data.image_split import Split, read_images, state
from cake_jax.data.source import NO_TRAINING_INPUTS, DataSettings
from cake_jax.errors import printable
from cake_jax.types import CakeError, CakeWarning, DataSpec, Examples

# A specification is measured on this many training images at most, the first of a fixed shuffle.
MAX_MEASURED = 10_000


@dataclasses.dataclass(frozen=True)
class Folder:
    """A `Source` of images in folders.

    Attributes:
      subfolder: Folder below `DataSettings.data_dir` that holds the splits. Empty if `data_dir` holds them itself.
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

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification.

        A measured one has the size of the images, and the mean and standard deviation of at most `MAX_MEASURED`
        training images. It is cached until a file changes. Without training images, the test images are measured.
        """
        if self.known_spec is not None:
            return self.known_spec
        train, test = self._splits(settings)
        if not train.files:
            warnings.warn(f"dataset.data_dir: {NO_TRAINING_INPUTS}", CakeWarning, stacklevel=2)
            train = test

        def measure() -> DataSpec:
            rows = np.random.default_rng(0).permutation(len(train.files))[:MAX_MEASURED]
            images = read_images(train, settings.image_size, 0, np.sort(rows))
            mean, std = mean_and_std(images)
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

        return cache.spec(cache.path_of("folder-spec", state(train, settings.image_size, 0), "json"), measure)

    def check(self, settings: DataSettings) -> None:
        """Refuses a folder if a split has no images, or if the splits have different classes."""
        self._splits(settings)

    def train_size(self, settings: DataSettings) -> int:
        """The number of training images. Counts files, and reads none."""
        return len(self._splits(settings)[0].files)

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training and test images `[n, H, W, C]` in [0, 1] with labels; see `Source.load`."""
        train, test = self._splits(settings)
        size, channels = settings.image_size, 0
        if self.known_spec is not None:
            size, channels = self.known_spec.shape[0], 3
        test_images = read_images(test, size, channels, np.arange(len(test.files)))
        train_images = read_images(train, size, channels, train_rows) if len(train_rows) else test_images[:0]
        train_x, test_x = (images.astype(np.float32) / np.float32(255) for images in (train_images, test_images))
        if train_x.shape[1:] != test_x.shape[1:]:
            raise CakeError(
                f"dataset.data_dir: images in {test.root} have shape {test_x.shape[1:]}, but images in {train.root} "
                f"have shape {train_x.shape[1:]}; convert one split"
            )
        return (train_x, train.labels[train_rows]), (test_x, test.labels)

    def _splits(self, settings: DataSettings) -> tuple[Split, Split]:
        """The training and the test split."""
        if not settings.data_dir:
            content = f"a folder {self.subfolder} with train/" if self.subfolder else "train/"
            raise CakeError(f"dataset.data_dir: empty; name the folder that holds {content} and test/ or val/")
        root = Path(settings.data_dir).expanduser() / self.subfolder
        test_root = next((root / name for name in self.test_splits if (root / name).is_dir()), None)
        if not (root / "train").is_dir() and (test_root is None or not self.measured):
            raise CakeError(
                f"dataset.data_dir: no folder {root / 'train'}; put training images in {root / 'train'}/<class>/"
            )
        if test_root is None:
            raise CakeError(f"dataset.data_dir: no folder {root / 'test'} or {root / 'val'}; one must hold test images")
        listed = image_split.listed(settings.class_names)
        has_train = (root / "train").is_dir()
        train = image_split.find(root, "train" if has_train else test_root.name, listed, says_skipped=self.measured)
        if listed and train.classes != listed:
            only = printable(sorted(set(listed) ^ set(train.classes))[0])
            raise CakeError(
                f"dataset.class_names: only one of {settings.class_names} and {train.root} has the class '{only}'"
            )
        test = image_split.find(root, test_root.name, train.classes, says_skipped=self.measured) if has_train else train
        if train.classes != test.classes:
            only = printable(sorted(set(train.classes) ^ set(test.classes))[0])
            raise CakeError(f"dataset.data_dir: only one of {train.root} and {test.root} has the class '{only}'")
        found = len(train.classes)
        if self.known_spec is not None and found != self.known_spec.num_classes:
            raise CakeError(f"dataset.data_dir: {train.root} has {found} classes, not {self.known_spec.num_classes}")
        if found < 2:
            raise CakeError(f"dataset.data_dir: {train.root} has {found} classes, not two or more")
        return train if has_train else train._replace(files=(), labels=train.labels[:0]), test


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
