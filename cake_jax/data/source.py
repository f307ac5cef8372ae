"""The settings of a data set, and the protocol of a source: the code that reads or makes one data set."""

import dataclasses
from typing import Protocol

import numpy as np

from cake_jax import checks
from cake_jax.types import CakeError, DataSpec, Examples

# The end of a `CakeWarning` of a source that has test data alone.
NO_TRAINING_INPUTS = (
    "there are no training inputs, so mean and standard deviation are those of the test inputs, unless dataset.mean "
    "and dataset.std are set"
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The choice of a data set, as `config.dataset` has it.

    Attributes:
      name: A name in `SOURCES`.
      data_dir: A folder or file, if the data set has one. For sets of tensorflow-datasets, the folder of prepared sets,
        or empty for TFDS's own default. For `tiny_imagenet` and `imagenet12`, the folder that holds a folder of that
        name. For `folder`, the folder that holds `train/`. For `npz`, the file.
      image_size: Side in pixels to which images of `folder` are scaled and cut. 0 if they all have one size.
      class_names: File of the names of the classes of `folder`, one in each line, in the order of the teacher's
        outputs. If empty, names that are all numbers are in the order of the numbers, and others in alphabetical order.
      shape: Shape of one input, for `none`: `(H, W, C)` or `(D,)`.
      num_classes: Number of classes, for `none`.
      max_train_examples: Number of training examples to keep, the first of a fixed shuffle. 0 keeps all.

    Raises:
      CakeError: A number is negative, or a data set other than `none` has a shape or a number of classes.
    """

    name: str
    data_dir: str = ""
    image_size: int = 0
    class_names: str = ""
    shape: tuple[int, ...] = ()
    num_classes: int = 0
    max_train_examples: int = 0

    def __post_init__(self) -> None:
        for name in ("image_size", "num_classes", "max_train_examples"):
            checks.not_negative(f"dataset.{name}", getattr(self, name))
        for name in ("shape", "num_classes"):
            if getattr(self, name) and self.name != "none":
                raise CakeError(f"dataset.{name}: '{self.name}' has its own; it is for dataset.name=none alone")


class Source(Protocol):
    """A source of one data set. An instance holds no data.

    The same files always give the same data. A source may draw random numbers from fixed seeds only.
    """

    @property
    def measured(self) -> bool:
        """Whether the specification is measured on the user's files. Otherwise the code holds it."""
        ...

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification.

        Reads files only if the source is `measured`.

        Raises:
          CakeError: The source is measured, and its files are missing or unusable.
        """
        ...

    def check(self, settings: DataSettings) -> None:
        """Checks within seconds that the files exist or can be made. Reads no examples.

        Raises:
          CakeError: `load` would fail for lack of files. The message says what to do.
        """
        ...

    def train_size(self, settings: DataSettings) -> int:
        """The number N of all training examples, whatever `settings.max_train_examples` is. Reads no examples.

        Raises:
          CakeError: The files that have to be counted are missing or unusable.
        """
        ...

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Reads or makes the data.

        Args:
          settings: The choice of the data set. `train_rows` already respects its `max_train_examples`.
          train_rows: Row numbers of the wanted training examples, `[n]` int, each at least 0 and below N.

        Returns:
          `(x, y)` of the n training examples, in the order of `train_rows`, and `(x, y)` of the whole test set. x is
          `[n, *shape]` in pixel units, those of `DataSpec.low` and `DataSpec.high`. y is `[n]` int, from 0 to K - 1.

        Raises:
          CakeError: The data are missing, damaged or do not fit together. The message says what to do.
        """
        ...
