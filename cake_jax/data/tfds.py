"""Image sets of tensorflow-datasets, read from prepared `array_record` folders without TensorFlow."""

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cake_jax.data import cache
from cake_jax.data.class_names import CIFAR10, CIFAR100, FASHION_MNIST
from cake_jax.types import CakeError, DataSpec, Examples, first_line

_DIGITS = tuple("0123456789")
_CIFAR10_FIGURES = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# Mean and deviation of the training images' pixels, channel by channel: the figures in common use, which anyone can
# compute from the data; those of mnist32 are computed, cifar2 takes those of the whole of CIFAR-10.
SPECS = {
    "mnist": DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0, _DIGITS),
    "mnist32": DataSpec((32, 32, 1), 10, (0.1000,), (0.2752,), 0.0, 1.0, _DIGITS),
    "fashion_mnist": DataSpec((28, 28, 1), 10, (0.2860,), (0.3530,), 0.0, 1.0, FASHION_MNIST),
    "cifar10": DataSpec((32, 32, 3), 10, *_CIFAR10_FIGURES, 0.0, 1.0, CIFAR10),
    "cifar2": DataSpec((32, 32, 3), 2, *_CIFAR10_FIGURES, 0.0, 1.0, CIFAR10[:2]),
    "cifar100": DataSpec((32, 32, 3), 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 0.0, 1.0, CIFAR100),
    "svhn_cropped": DataSpec((32, 32, 3), 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), 0.0, 1.0, _DIGITS),
}
TRAIN_SIZES = {
    "mnist": 60_000,
    "mnist32": 60_000,
    "fashion_mnist": 60_000,
    "cifar10": 50_000,
    "cifar2": 10_000,
    "cifar100": 50_000,
    "svhn_cropped": 73_257,
}
# Sets that are made of another.
_MADE_OF = {"mnist32": "mnist", "cifar2": "cifar10"}


def train_size(name: str, data_dir: str) -> int:
    """Number of training images, as published."""
    return TRAIN_SIZES[name]


def check(name: str, data_dir: str) -> None:
    """Refuses a set that is neither prepared nor can be: TFDS would try for minutes in vain."""
    name, folder = _MADE_OF.get(name, name), _folder(data_dir)
    if not _is_prepared(name, folder) and not _can_prepare(name):
        raise CakeError(
            f"dataset.data_dir: no '{name}' in {folder}; name a folder that TFDS has prepared in array_record format, "
            "or install cake_jax[tfds] and run where there is a network"
        )


def _can_prepare(name: str) -> bool:
    """Whether TensorFlow is there, and a network that knows the home of the data set."""
    if importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow_datasets as tfds

    try:
        return bool(socket.getaddrinfo(urlsplit(tfds.builder(name).info.homepage).hostname, None))
    except OSError:
        return False


def load(name: str, data_dir: str, image_size: int, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Pixels in [0, 1] and labels of the given training rows and of the test split; see `cake_jax.data.load`.

    A split that is decoded as a whole is kept in the user's cache folder, so that no later run decodes it again.
    """
    check(name, data_dir)
    import tensorflow_datasets as tfds

    source, folder = _MADE_OF.get(name, name), _folder(data_dir)
    try:
        builder = tfds.builder(source, data_dir=folder, file_format="array_record")
        if not _is_prepared(source, folder):
            builder.download_and_prepare()
        return _split(builder, name, "train", train_rows), _split(builder, name, "test", None)
    except Exception as error:
        raise CakeError(
            f"dataset.data_dir: '{source}' in {folder} cannot be read or prepared: {first_line(error)}"
        ) from error


def _split(builder: Any, name: str, split: str, rows: np.ndarray | None) -> Examples:
    """The given rows of a split, or all."""
    if name == "cifar2":  # which rows these are is known when all labels are read
        images, labels = _read(builder, split, None)
        kept = np.flatnonzero(labels < 2)
        kept = kept if rows is None else kept[rows]
        images, labels = images[kept], labels[kept]
    else:
        images, labels = _read(builder, split, rows)
    if name == "mnist32":
        images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return images.astype(np.float32) / np.float32(255), labels


def _read(builder: Any, split: str, rows: np.ndarray | None) -> Examples:
    """uint8 images and labels of the given rows of a split, or of all."""
    # Two folders may hold different images under one name and version.
    about = Path(builder.data_dir, "dataset_info.json")
    state = f"{about.resolve()} {about.stat().st_mtime_ns}"
    count = builder.info.splits[split].num_examples
    wanted = np.arange(count) if rows is None else rows
    path = cache.path_of(f"{builder.name}-{split}", state, "npz")
    cached = cache.examples(path, count)
    if cached:
        return cached[0][wanted], cached[1][wanted]
    images, labels = _decode(builder, split, wanted)
    if np.array_equal(wanted, np.arange(count)):
        cache.keep_examples(path, images, labels)
    return images, labels


def _decode(builder: Any, split: str, rows: np.ndarray) -> Examples:
    """uint8 images and labels of the given rows."""
    source = builder.as_data_source(split)
    parts = [rows[start : start + 1000].tolist() for start in range(0, len(rows), 1000)]
    examples = [example for part in parts for example in source.__getitems__(part)]
    return np.stack([example["image"] for example in examples]), np.array([example["label"] for example in examples])


def _folder(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _is_prepared(name: str, folder: Path) -> bool:
    return any((folder / name).glob("*/dataset_info.json"))
