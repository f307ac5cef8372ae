"""Image sets of tensorflow-datasets, read from prepared `array_record` folders without TensorFlow."""

import contextlib
import hashlib
import importlib.util
import io
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cake_jax.files import cache_folder, write_atomically
from cake_jax.types import CakeError, DataSpec, Examples, first_line

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPECS = {
    "mnist": DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0, tuple("0123456789")),
    "cifar10": DataSpec((32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 0.0, 1.0, _CIFAR10),
}
TRAIN_SIZES = {"mnist": 60_000, "cifar10": 50_000}


def check(name: str, data_dir: str) -> None:
    """Refuses a set that is neither prepared nor can be: TFDS would try for minutes in vain."""
    folder = _folder(data_dir)
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


def load(name: str, data_dir: str, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Pixels in [0, 1] and labels of the given training rows and of the test split; see `cake_jax.data.load`.

    A split that is decoded as a whole is kept in the user's cache folder, so that no later run decodes it again.
    """
    check(name, data_dir)
    import tensorflow_datasets as tfds

    folder = _folder(data_dir)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        if not _is_prepared(name, folder):
            builder.download_and_prepare()
        test_rows = np.arange(builder.info.splits["test"].num_examples)
        return _split(builder, "train", train_rows), _split(builder, "test", test_rows)
    except Exception as error:
        raise CakeError(
            f"dataset.data_dir: '{name}' in {folder} cannot be read or prepared: {first_line(error)}"
        ) from error


def _split(builder: Any, split: str, rows: np.ndarray) -> Examples:
    """The given rows of a split."""
    # Two folders may hold different images under one name and version.
    source = Path(builder.data_dir, "dataset_info.json")
    state = f"{source.resolve()} {source.stat().st_mtime_ns}".encode()
    cached = cache_folder("data") / f"{builder.name}-{split}-{hashlib.sha256(state).hexdigest()[:16]}.npz"
    if cached.exists():
        with np.load(cached) as arrays:
            images, labels = arrays["images"][rows], arrays["labels"][rows]
    else:
        images, labels = _decode(builder, split, rows)
        if np.array_equal(rows, np.arange(builder.info.splits[split].num_examples)):
            with contextlib.suppress(OSError):  # no home, or a full one: the next run decodes again
                _save(cached, images, labels)
    return images.astype(np.float32) / np.float32(255), labels


def _decode(builder: Any, split: str, rows: np.ndarray) -> Examples:
    """uint8 images and labels of the given rows."""
    source = builder.as_data_source(split)
    parts = [rows[start : start + 1000].tolist() for start in range(0, len(rows), 1000)]
    examples = [example for part in parts for example in source.__getitems__(part)]
    return np.stack([example["image"] for example in examples]), np.array([example["label"] for example in examples])


def _save(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels)
    write_atomically(path, content.getvalue())


def _folder(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _is_prepared(name: str, folder: Path) -> bool:
    return any((folder / name).glob("*/dataset_info.json"))
