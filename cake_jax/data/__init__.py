"""Data sets by name. A data set is one file with a `Source`, and one line of `SOURCES`.

The teacher's training and the evaluation read real data. The student never does.
"""

from typing import NamedTuple

import numpy as np

from cake_jax import checks
from cake_jax.data import digits, image_folder, none, npz, tfds, toy
from cake_jax.data.source import DataSettings, Source
from cake_jax.types import CakeError, DataSpec

SOURCES: dict[str, Source] = {
    "two_clusters": toy.TWO_CLUSTERS,
    "three_clusters": toy.THREE_CLUSTERS,
    "nine_clusters": toy.NINE_CLUSTERS,
    "two_moons": toy.TWO_MOONS,
    "circles": toy.CIRCLES,
    "anisotropic": toy.ANISOTROPIC,
    "checkerboard": toy.CHECKERBOARD,
    "checkerboard_4": toy.CHECKERBOARD_4,
    "digits": digits.DIGITS,
    "mnist": tfds.MNIST,
    "mnist32": tfds.MNIST32,
    "fashion_mnist": tfds.FASHION_MNIST,
    "fashion_mnist32": tfds.FASHION_MNIST32,
    "cifar10": tfds.CIFAR10,
    "cifar2": tfds.CIFAR2,
    "cifar100": tfds.CIFAR100,
    "svhn_cropped": tfds.SVHN_CROPPED,
    "tiny_imagenet": image_folder.TINY_IMAGENET,
    "imagenet12": image_folder.IMAGENET12,
    "folder": image_folder.FOLDER,
    "npz": npz.NPZ,
    "none": none.NO_DATA,
}


class Dataset(NamedTuple):
    """A labelled data set with its specification.

    Attributes:
      spec: Specification of the inputs.
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


def spec_of(settings: DataSettings, saved: DataSpec | None = None) -> DataSpec:
    """The specification of a data set. Reads files only to measure it on the user's own data.

    Args:
      settings: The data set.
      saved: The specification saved with an existing teacher. It is used instead of measuring, so the data may be gone.
        Ignored unless the source is measured.

    Raises:
      CakeError: The name is unknown, the user's data cannot be read, or shape or classes are not those of `saved`.
    """
    source = _source(settings)
    if saved is None or not source.measured:
        return source.spec(settings)
    for name in ("shape", "num_classes"):
        given, known = getattr(settings, name), getattr(saved, name)
        if given and given != known:
            raise CakeError(f"dataset.{name}: {given}, but the earlier run's teacher has {known}; leave it out")
    return saved


def check(settings: DataSettings) -> None:
    """Checks within seconds that the data exist or can be made. Reads no examples.

    Raises:
      CakeError: The name is unknown, or `load` would fail for lack of data. The message says what to do.
    """
    _source(settings).check(settings)


def class_order(settings: DataSettings, spec: DataSpec) -> str:
    """A line with the order of the classes of a user's folder, at most 20 of them. Empty for other data sets."""
    if settings.name != "folder":
        return ""
    shown = ", ".join(f"{label} {name}" for label, name in enumerate(spec.class_names[:20]))
    return f"classes    {shown}{', ...' if len(spec.class_names) > 20 else ''}"


def check_training(settings: DataSettings, mend: str) -> None:
    """Checks that there are training data.

    Args:
      settings: The data set.
      mend: The end of the message if there are none: what that prevents, and what to do.

    Raises:
      CakeError: `check` fails, or there are test data alone.
    """
    check(settings)
    if not train_size(settings):
        raise CakeError(f"dataset.data_dir: {settings.data_dir} has test data alone, so {mend}")


def train_size(settings: DataSettings) -> int:
    """The number of training examples that `load` returns. Reads no examples.

    Raises:
      CakeError: The name is unknown, or the files that have to be counted are missing or unusable.
    """
    size = _source(settings).train_size(settings)
    return min(size, settings.max_train_examples or size)


def load(settings: DataSettings, spec: DataSpec | None = None) -> Dataset:
    """Reads or makes a data set.

    Args:
      settings: The data set.
      spec: The specification to normalise by. None takes that of `spec_of`. If it has class names, the labels of a
        user's own data are in their order.

    Returns:
      The data set, normalised.

    Raises:
      CakeError: The name is unknown, or the data are missing, damaged or do not fit `spec`.
    """
    spec = spec or spec_of(settings)
    source, limit = _source(settings), settings.max_train_examples
    size = source.train_size(settings)
    rows = np.random.default_rng(0).permutation(size)[:limit] if 0 < limit < size else np.arange(size)
    (train_x, train_y), (test_x, test_y) = source.load(settings, rows)
    if source.measured and spec.class_names:
        labels = _labels_of(source.spec(settings).class_names, spec.class_names)
        train_y, test_y = labels[train_y], labels[test_y]
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if x.shape[1:] != spec.shape:
            raise CakeError(f"dataset: inputs of '{settings.name}' have shape {x.shape[1:]}, not {spec.shape}")
        if len(y) and y.max() >= spec.num_classes:
            raise CakeError(
                f"dataset: '{settings.name}' has the label {y.max()}, but labels end at {spec.num_classes - 1}"
            )
    return Dataset(
        spec,
        spec.normalize(train_x),
        np.asarray(train_y, np.int32),
        spec.normalize(test_x),
        np.asarray(test_y, np.int32),
    )


def _labels_of(names: tuple[str, ...], order: tuple[str, ...]) -> np.ndarray:
    """The label of each of the classes `names`: its place in `order`."""
    if set(names) != set(order):
        only = sorted(set(names) ^ set(order))[0]
        raise CakeError(f"dataset.data_dir: only one of the data and the teacher has the class '{only}'")
    return np.array([order.index(name) for name in names], np.int32)


def _source(settings: DataSettings) -> Source:
    checks.one_of("dataset.name", settings.name, SOURCES)
    return SOURCES[settings.name]


__all__ = [
    "SOURCES",
    "DataSettings",
    "Dataset",
    "Source",
    "check",
    "check_training",
    "class_order",
    "load",
    "spec_of",
    "train_size",
]
