"""Image sets of tensorflow-datasets, read from prepared `array_record` folders without TensorFlow."""

import importlib
import os
from pathlib import Path

import numpy as np

from cake_jax.types import CakeError, DataSpec

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPECS = {
    "mnist": DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0, tuple("0123456789")),
    "cifar10": DataSpec((32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 0.0, 1.0, _CIFAR10),
}


def load(name: str, data_dir: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pixels in [0, 1] and labels of the training and test split; see `cake_jax.data.load`.

    A set that is not there is prepared only where TensorFlow (the `tfds` extra) is installed; TFDS itself would try
    the network for minutes before it fails.
    """
    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if not any((folder / name).glob("*/dataset_info.json")):
        _prepare(name, folder)
    import tensorflow_datasets as tfds

    try:
        sources = [tfds.data_source(name, split=split, data_dir=folder, download=False) for split in ("train", "test")]
        return _decode(sources[0]), _decode(sources[1])
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise CakeError(f"dataset.data_dir: {folder / name} cannot be read, prepare it anew: {reason}") from error


def _decode(source) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for start in range(0, len(source), 1000):
        for example in source.__getitems__(range(start, min(start + 1000, len(source)))):
            images.append(example["image"])
            labels.append(example["label"])
    return np.stack(images).astype(np.float32) / np.float32(255), np.array(labels)


def _prepare(name: str, folder: Path) -> None:
    missing = f"dataset.data_dir: no '{name}' in {folder}"
    if importlib.util.find_spec("tensorflow") is None:
        raise CakeError(
            f"{missing}; name a folder that TFDS has prepared in array_record format, "
            "or install cake_jax[tfds] and run where there is a network"
        )
    import tensorflow_datasets as tfds

    try:
        tfds.builder(name, data_dir=folder, file_format="array_record").download_and_prepare()
    except Exception as error:
        raise CakeError(f"{missing}, and it could not be downloaded: {str(error).strip().splitlines()[0]}") from error
