"""The eight 2-dimensional toy data sets of the CAKE authors' code: 10,000 training points and 5,000 test points each.

The points of a set are part of its definition. They are the same in every run, whatever the run's seed.

Source: centres and deviations are those of `src/data.py` of github.com/ml-research/CAKE.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import ClassVar

import numpy as np

from cake_jax.data.source import DataSettings
from cake_jax.types import DataSpec, Examples

NUM_TRAIN, NUM_TEST = 10_000, 5_000

# (count, seed) -> points [count, 2] and labels [count].
Make = Callable[[int, int], Examples]


@dataclasses.dataclass(frozen=True)
class Toy:
    """A `Source` of random points in the plane.

    Attributes:
      num_classes: Number of classes K.
      make: Draws points and labels of a seed.
    """

    num_classes: int
    make: Make
    measured: ClassVar[bool] = False

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification. `settings` are ignored."""
        return DataSpec(shape=(2,), num_classes=self.num_classes)

    def check(self, settings: DataSettings) -> None:
        """Accepts all settings: the set needs no files."""

    def train_size(self, settings: DataSettings) -> int:
        """The number of training points."""
        return NUM_TRAIN

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training points `[n, 2]` and test points `[5000, 2]` with labels; see `Source.load`.

        All points are standardised by the mean and standard deviation of the 10,000 training points.
        """
        (train_x, train_y), (test_x, test_y) = self.make(NUM_TRAIN, 0), self.make(NUM_TEST, 1)
        mean, std = train_x.mean(axis=0), train_x.std(axis=0)
        return ((train_x[train_rows] - mean) / std, train_y[train_rows]), ((test_x - mean) / std, test_y)


def _sklearn_datasets() -> ModuleType:
    """The module `sklearn.datasets`. Scikit-learn takes a second to import."""
    from sklearn import datasets

    return datasets


def _blobs(centers: list[tuple[float, float]], deviation: float) -> Make:
    """Normal distributions of equal deviation, one for each class."""

    def make(count: int, seed: int) -> Examples:
        return _sklearn_datasets().make_blobs(
            count, centers=np.array(centers), cluster_std=deviation, random_state=seed
        )[:2]

    return make


def _two_moons(count: int, seed: int) -> Examples:
    return _sklearn_datasets().make_moons(count, noise=0.3, random_state=seed)


def _circles(count: int, seed: int) -> Examples:
    return _sklearn_datasets().make_circles(count, noise=0.05, factor=0.5, random_state=seed)


def _anisotropic(count: int, seed: int) -> Examples:
    x, y = _blobs([(-1.0, 0.5), (0.5, 0.5)], 0.5)(count, seed)
    return x @ np.array([[0.5, -0.2], [-0.2, 0.4]]), y


def _checkerboard(cells: int) -> Make:
    """A blob in each of `cells` x `cells` cells. Neighbours have different classes."""
    grid = [(float(row), float(column)) for row in range(cells) for column in range(cells)]
    classes = np.array(grid).sum(axis=1).astype(int) % 2

    def make(count: int, seed: int) -> Examples:
        x, cell = _blobs(grid, 0.2)(count, seed)
        return x, classes[cell]

    return make


TWO_CLUSTERS = Toy(2, _blobs([(0.0, 0.0), (0.5, 0.5)], 0.1))
THREE_CLUSTERS = Toy(3, _blobs([(0.0, 0.0), (0.5, 0.5), (0.5, 0.0)], 0.05))
NINE_CLUSTERS = Toy(9, _blobs([(i / 2, j / 2) for i in range(3) for j in range(3)], 0.1))
TWO_MOONS = Toy(2, _two_moons)
CIRCLES = Toy(2, _circles)
ANISOTROPIC = Toy(2, _anisotropic)
CHECKERBOARD = Toy(2, _checkerboard(3))
CHECKERBOARD_4 = Toy(2, _checkerboard(2))
