"""The protocol of a data source: the code that reads or makes one data set."""

from typing import NamedTuple, Protocol

import numpy as np

from cake_jax.types import DataSpec, Examples

# The end of a `CakeWarning` of a source that has test data alone.
NO_TRAINING_INPUTS = (
    "there are no training inputs, so mean and standard deviation are those of the test inputs, unless dataset.mean "
    "and dataset.std are set"
)


class Location(NamedTuple):
    """The place of a data set's files, and the size of its images.

    Attributes:
      data_dir: A folder or file. Each source says which one. Empty for the source's default, if it has one.
      image_size: Side in pixels to which images are scaled and cut. 0 keeps the size of the files.
      class_names: File of class names, one in each line, in the order of the labels. Empty for the source's own order.
      shape: Shape of an input, if there are no data.
      num_classes: Number of classes, if there are no data.
    """

    data_dir: str = ""
    image_size: int = 0
    class_names: str = ""
    shape: tuple[int, ...] = ()
    num_classes: int = 0


class Source(Protocol):
    """A source of one data set. An instance holds no data.

    The same files always give the same data. A source may draw random numbers from fixed seeds only.
    """

    @property
    def measured(self) -> bool:
        """Whether the specification is measured on the user's files. Otherwise the code holds it."""
        ...

    def spec(self, location: Location) -> DataSpec:
        """The specification.

        Reads files only if the source is `measured`.

        Raises:
          CakeError: The source is measured, and its files are missing or unusable.
        """
        ...

    def check(self, location: Location) -> None:
        """Checks within seconds that the files exist or can be made. Reads no examples.

        Raises:
          CakeError: `load` would fail for lack of files. The message says what to do.
        """
        ...

    def train_size(self, location: Location) -> int:
        """The number of training examples N. Reads no examples.

        Raises:
          CakeError: The files that have to be counted are missing or unusable.
        """
        ...

    def load(self, location: Location, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Reads or makes the data.

        Args:
          location: The place of the files.
          train_rows: Row numbers of the wanted training examples, `[n]` int, each at least 0 and below N.

        Returns:
          `(x, y)` of the n training examples, in the order of `train_rows`, and `(x, y)` of the whole test set. x is
          `[n, *shape]` in pixel units, those of `DataSpec.low` and `DataSpec.high`. y is `[n]` int, from 0 to K - 1.

        Raises:
          CakeError: The data are missing, damaged or do not fit together. The message says what to do.
        """
        ...
