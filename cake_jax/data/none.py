"""No data at all: the user has a trained teacher, and says what its inputs are."""

import dataclasses
from typing import ClassVar

import numpy as np

from cake_jax.data.source import DataSettings
from cake_jax.types import CakeError, DataSpec, Examples


@dataclasses.dataclass(frozen=True)
class NoData:
    """The `Source` of nothing but a specification, from `DataSettings.shape` and `DataSettings.num_classes`.

    The specification of an earlier run's teacher takes its place, so `measured` is true.
    """

    measured: ClassVar[bool] = True

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification. Pixels of images are from 0 to 1, and vectors have no bounds.

        Raises:
          CakeError: The shape or the number of classes is missing.
        """
        if not settings.shape:
            raise CakeError("dataset.shape: empty; without data, set it to the shape of an input, such as (32, 32, 3)")
        if not settings.num_classes:
            raise CakeError("dataset.num_classes: 0; without data, set it to the number of the teacher's classes")
        spec = DataSpec(settings.shape, settings.num_classes)
        return dataclasses.replace(spec, low=0.0, high=1.0) if spec.is_image else spec

    def check(self, settings: DataSettings) -> None:
        """Refuses to have data."""
        raise CakeError("dataset.name: none, and this needs data; name a data set")

    def train_size(self, settings: DataSettings) -> int:
        """0."""
        return 0

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Refuses to have data."""
        raise CakeError("dataset.name: none, and this needs data; name a data set")


NO_DATA = NoData()
