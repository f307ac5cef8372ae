"""Scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels. They need no download."""

import dataclasses
from typing import ClassVar

import numpy as np

from cake_jax.data.source import DataSettings
from cake_jax.types import DataSpec, Examples


@dataclasses.dataclass(frozen=True)
class Digits:
    """The `Source` of the digits, in a fixed split that is stratified by class."""

    measured: ClassVar[bool] = False

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification. `settings` are ignored."""
        return DataSpec(
            shape=(8, 8, 1),
            num_classes=10,
            mean=(4.884,),
            std=(6.017,),
            low=0.0,
            high=16.0,
            class_names=tuple("0123456789"),
        )

    def check(self, settings: DataSettings) -> None:
        """Accepts all settings: the set needs no files."""

    def train_size(self, settings: DataSettings) -> int:
        """The number of training images."""
        return 1437

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training images `[n, 8, 8, 1]` and test images `[360, 8, 8, 1]` with labels; see `Source.load`."""
        # Scikit-learn takes a second to import.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        train_x, test_x, train_y, test_y = train_test_split(
            images.reshape(-1, 8, 8, 1), labels, test_size=360, stratify=labels, random_state=0
        )
        return (train_x[train_rows], train_y[train_rows]), (test_x, test_y)


DIGITS = Digits()
