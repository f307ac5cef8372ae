"""Data sets by name: real data for the teacher and for evaluation, never for the student."""

from typing import NamedTuple

import numpy as np

from cake_jax.data import digits, folder, npz, tfds, toy
from cake_jax.types import CakeError, DataSpec


class Dataset(NamedTuple):
    """A labelled data set with its specification.

    Attributes:
      spec: The input domain.
      train_x: `[N, *spec.shape]` float32, normalised.
      train_y: `[N]` int32.
      test_x: `[M, *spec.shape]` float32, normalised.
      test_y: `[M]` int32.
    """

    spec: DataSpec
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


_SOURCES = (toy, digits, tfds, folder, npz)
# Of these the specification stands here; that of a user's own data is measured.
SPECS = {name: spec for source in _SOURCES for name, spec in source.SPECS.items()}
NAMES = (*SPECS, folder.OWN, npz.OWN)


def spec_of(name: str, *, data_dir: str = "", image_size: int = 0) -> DataSpec:
    """The data specification of a data set, without reading any data but a user's own.

    Args:
      name: One of `NAMES`.
      data_dir: See `load`.
      image_size: See `load`.

    Raises:
      CakeError: Unknown name, or a user's data that cannot be read.
    """
    source = _source(name)
    return SPECS[name] if name in SPECS else source.measure(data_dir, image_size)


def load(
    name: str, *, data_dir: str = "", image_size: int = 0, max_train_examples: int = 0, spec: DataSpec | None = None
) -> Dataset:
    """Reads or makes a data set.

    Args:
      name: One of `NAMES`.
      data_dir: Folder of prepared TFDS data sets, empty for TFDS's own default; of `tiny_imagenet` and `imagenet12` the
        folder that holds theirs; of `folder` that with `train/`; of `npz` the file. Others ignore it.
      image_size: Side that images of `folder` are scaled and cut to; 0 where all are of one size. Others ignore it.
      max_train_examples: Keep only so many training examples, the first of a fixed shuffle; 0 keeps all.
      spec: Specification of a user's own data where a teacher has it already, to normalise by; None measures.

    Returns:
      The data set, normalised.

    Raises:
      CakeError: Unknown name, or the data cannot be had or do not fit; the message says what to do.
    """
    spec = spec or spec_of(name, data_dir=data_dir, image_size=image_size)
    source = _source(name)
    size = source.train_size(name, data_dir)
    some = 0 < max_train_examples < size
    rows = np.random.default_rng(0).permutation(size)[:max_train_examples] if some else np.arange(size)
    (train_x, train_y), (test_x, test_y) = source.load(name, data_dir, image_size, rows)
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if x.shape[1:] != spec.shape:
            raise CakeError(f"dataset: '{name}' holds inputs of shape {x.shape[1:]}, not {spec.shape}")
        if y.max() >= spec.num_classes:
            raise CakeError(f"dataset: '{name}' holds the label {y.max()}, but there are {spec.num_classes} classes")
    return Dataset(
        spec,
        spec.normalize(train_x),
        np.asarray(train_y, np.int32),
        spec.normalize(test_x),
        np.asarray(test_y, np.int32),
    )


def check(name: str, *, data_dir: str = "") -> None:
    """Fails at once where `load` would have to fail: the data are not there and cannot be had.

    Raises:
      CakeError: With what to do.
    """
    _source(name).check(name, data_dir)


def train_size(name: str, max_train_examples: int = 0, *, data_dir: str = "") -> int:
    """Number of training examples that `load` gives, without reading any.

    Raises:
      CakeError: Unknown name, or no folder or file to count in.
    """
    size = _source(name).train_size(name, data_dir)
    return min(size, max_train_examples or size)


def _source(name: str):
    for source in _SOURCES:
        if name in source.SPECS or name == getattr(source, "OWN", None):
            return source
    raise CakeError(f"dataset.name: '{name}' is not one of {', '.join(NAMES)}")
