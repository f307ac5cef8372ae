"""Image sets of tensorflow-datasets, read from prepared `array_record` folders without TensorFlow."""

import importlib.util
import os
from pathlib import Path

import numpy as np

from cake_jax.types import CakeError, DataSpec, first_line

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPECS = {
    "mnist": DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0, tuple("0123456789")),
    "cifar10": DataSpec((32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 0.0, 1.0, _CIFAR10),
}
TRAIN_SIZES = {"mnist": 60_000, "cifar10": 50_000}


def check(name: str, data_dir: str) -> None:
    """Refuses a set that is neither prepared nor can be: without TensorFlow, TFDS would try for minutes in vain."""
    folder = _folder(data_dir)
    if not _is_prepared(name, folder) and importlib.util.find_spec("tensorflow") is None:
        raise CakeError(
            f"dataset.data_dir: no '{name}' in {folder}; name a folder that TFDS has prepared in array_record format, "
            "or install cake_jax[tfds] and run where there is a network"
        )


def load(name: str, data_dir: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pixels in [0, 1] and labels of the training and test split; see `cake_jax.data.load`."""
    check(name, data_dir)
    import tensorflow_datasets as tfds

    folder = _folder(data_dir)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        if not _is_prepared(name, folder):
            builder.download_and_prepare()
        return _decode(builder.as_data_source("train")), _decode(builder.as_data_source("test"))
    except Exception as error:
        raise CakeError(
            f"dataset.data_dir: '{name}' in {folder} cannot be read or prepared: {first_line(error)}"
        ) from error


def _decode(source) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for start in range(0, len(source), 1000):
        for example in source.__getitems__(range(start, min(start + 1000, len(source)))):
            images.append(example["image"])
            labels.append(example["label"])
    return np.stack(images).astype(np.float32) / np.float32(255), np.array(labels)


def _folder(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _is_prepared(name: str, folder: Path) -> bool:
    return any((folder / name).glob("*/dataset_info.json"))
