"""Data sets by name: real data for the teacher and for evaluation, never for the student."""

from typing import NamedTuple

import numpy as np

from cake_jax.data import digits, tfds, toy
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


_SOURCES = (toy, digits, tfds)
NAMES = tuple(name for source in _SOURCES for name in source.SPECS)


def spec_of(name: str) -> DataSpec:
    """The data specification of a named data set, without reading any data.

    Raises:
      CakeError: Unknown name.
    """
    return _source(name).SPECS[name]


def load(name: str, *, data_dir: str = "", max_train_examples: int = 0) -> Dataset:
    """Reads or makes a data set.

    Args:
      name: One of `NAMES`.
      data_dir: Folder of prepared TFDS data sets; empty for TFDS's own default. Others ignore it.
      max_train_examples: Keep only so many training examples, the first of a fixed shuffle; 0 keeps all.

    Returns:
      The data set, normalised.

    Raises:
      CakeError: Unknown name, or the data cannot be had; the message says what to do.
    """
    spec, size = spec_of(name), _source(name).TRAIN_SIZES[name]
    some = 0 < max_train_examples < size
    rows = np.random.default_rng(0).permutation(size)[:max_train_examples] if some else np.arange(size)
    (train_x, train_y), (test_x, test_y) = _source(name).load(name, data_dir, rows)
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


def train_size(name: str, max_train_examples: int = 0) -> int:
    """Number of training examples that `load` gives, without reading any."""
    size = _source(name).TRAIN_SIZES[name]
    return min(size, max_train_examples or size)


def _source(name: str):
    for source in _SOURCES:
        if name in source.SPECS:
            return source
    raise CakeError(f"dataset.name: '{name}' is not one of {', '.join(NAMES)}")
