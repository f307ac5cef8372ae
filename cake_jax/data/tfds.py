"""Image sets of tensorflow-datasets (TFDS), read from prepared `array_record` folders without TensorFlow."""

import dataclasses
import importlib.util
import os
import socket
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from cake_jax.data import cache, class_names
from cake_jax.data.source import DataSettings
from cake_jax.types import CakeError, DataSpec, Examples, first_line


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A `Source` of an image set that TFDS has prepared.

    `DataSettings.data_dir` is the folder of prepared sets. If it is empty, TFDS's default folder is used.

    Attributes:
      builder: Name of the TFDS data set.
      known_spec: The specification. Its mean and standard deviation are those of the training pixels.
      num_train: Number of training images, as published.
      padding: Number of black pixels that are added on each side.
      first_classes: If above 0, only images of the first `first_classes` classes are kept.
    """

    builder: str
    known_spec: DataSpec
    num_train: int
    padding: int = 0
    first_classes: int = 0
    measured: ClassVar[bool] = False

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification. `settings` are ignored."""
        return self.known_spec

    def train_size(self, settings: DataSettings) -> int:
        """The number of training images. `settings` are ignored."""
        return self.num_train

    def check(self, settings: DataSettings) -> None:
        """Refuses a set that is not prepared and cannot be prepared. TFDS would retry the download for minutes."""
        folder = _folder(settings)
        if not self._is_prepared(folder) and not self._can_prepare():
            raise CakeError(
                f"dataset.data_dir: no '{self.builder}' in {folder}; name a folder that TFDS has prepared in "
                "array_record format, or install cake_jax[tfds] and run with a network"
            )

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training and test images `[n, H, W, C]` in [0, 1] with labels; see `Source.load`.

        TFDS prepares the set first if the folder lacks it. A split is cached if all its rows are decoded.
        """
        self.check(settings)
        import tensorflow_datasets as tfds

        folder = _folder(settings)
        try:
            builder = tfds.builder(self.builder, data_dir=folder, file_format="array_record")
            if not self._is_prepared(folder):
                builder.download_and_prepare()
            return self._split(builder, "train", train_rows), self._split(builder, "test", None)
        except Exception as error:
            raise CakeError(
                f"dataset.data_dir: '{self.builder}' in {folder} cannot be read or prepared: {first_line(error)}"
            ) from error

    def _split(self, builder: Any, split: str, rows: np.ndarray | None) -> Examples:
        """The given rows of a split, or all rows for None."""
        if self.first_classes:
            # The rows of these classes are unknown until all labels are read.
            images, labels = _read(builder, split, None)
            kept = np.flatnonzero(labels < self.first_classes)
            kept = kept if rows is None else kept[rows]
            images, labels = images[kept], labels[kept]
        else:
            images, labels = _read(builder, split, rows)
        if self.padding:
            images = np.pad(images, ((0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0)))
        return images.astype(np.float32) / np.float32(255), labels

    def _is_prepared(self, folder: Path) -> bool:
        return any((folder / self.builder).glob("*/dataset_info.json"))

    def _can_prepare(self) -> bool:
        """Whether TensorFlow is installed, and the network finds the host of the data set's home page."""
        if importlib.util.find_spec("tensorflow") is None:
            return False
        import tensorflow_datasets as tfds

        try:
            return bool(socket.getaddrinfo(urlsplit(tfds.builder(self.builder).info.homepage).hostname, None))
        except OSError:
            return False


def _folder(settings: DataSettings) -> Path:
    return Path(settings.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _read(builder: Any, split: str, rows: np.ndarray | None) -> Examples:
    """uint8 images and labels of the given rows of a split, or of all rows for None."""
    # Two folders may hold different images under the same name and version.
    info = Path(builder.data_dir, "dataset_info.json")
    state = f"{info.resolve()} {info.stat().st_mtime_ns}"
    count = builder.info.splits[split].num_examples
    wanted = np.arange(count) if rows is None else rows
    path = cache.path_of(f"{builder.name}-{split}", state, "npz")
    return cache.examples(path, count, wanted, lambda: _decode(builder, split, wanted))


def _decode(builder: Any, split: str, rows: np.ndarray) -> Examples:
    """uint8 images and labels of the given rows."""
    source = builder.as_data_source(split)
    parts = [rows[start : start + 1000].tolist() for start in range(0, len(rows), 1000)]
    examples = [example for part in parts for example in source.__getitems__(part)]
    return np.stack([example["image"] for example in examples]), np.array([example["label"] for example in examples])


# Means and standard deviations are the values in common use, which can be computed from the data. Those of MNIST32 were
# computed from padded images, those of FASHION_MNIST32 from the values without padding. CIFAR2 has the values of
# CIFAR-10.
_DIGITS = tuple("0123456789")
_CIFAR10_MOMENTS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MNIST = Tfds("mnist", DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0, _DIGITS), 60_000)
MNIST32 = Tfds("mnist", DataSpec((32, 32, 1), 10, (0.1000,), (0.2752,), 0.0, 1.0, _DIGITS), 60_000, padding=2)
FASHION_MNIST = Tfds(
    "fashion_mnist",
    DataSpec((28, 28, 1), 10, (0.2860,), (0.3530,), 0.0, 1.0, class_names.FASHION_MNIST),
    60_000,
)
FASHION_MNIST32 = Tfds(
    "fashion_mnist",
    DataSpec((32, 32, 1), 10, (0.2190,), (0.3318,), 0.0, 1.0, class_names.FASHION_MNIST),
    60_000,
    padding=2,
)
CIFAR10 = Tfds("cifar10", DataSpec((32, 32, 3), 10, *_CIFAR10_MOMENTS, 0.0, 1.0, class_names.CIFAR10), 50_000)
CIFAR2 = Tfds(
    "cifar10",
    DataSpec((32, 32, 3), 2, *_CIFAR10_MOMENTS, 0.0, 1.0, class_names.CIFAR10[:2]),
    10_000,
    first_classes=2,
)
CIFAR100 = Tfds(
    "cifar100",
    DataSpec((32, 32, 3), 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 0.0, 1.0, class_names.CIFAR100),
    50_000,
)
SVHN_CROPPED = Tfds(
    "svhn_cropped",
    DataSpec((32, 32, 3), 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), 0.0, 1.0, _DIGITS),
    73_257,
)
