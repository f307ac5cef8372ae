"""The eight 2-dimensional toy data sets of the CAKE reference: 10,000 training and 5,000 fresh test points each.

The points of a set are always the same: they belong to the set's definition, not to a run. Training and test points
are standardised by the mean and deviation of the training points.
"""

from collections.abc import Callable

import numpy as np
from sklearn import datasets

from cake_jax.types import DataSpec, Examples

NUM_TRAIN, NUM_TEST = 10_000, 5_000


def _blobs(centers: list[tuple[float, float]], deviation: float) -> Callable[[int, int], Examples]:
    def make(count: int, seed: int) -> Examples:
        return datasets.make_blobs(count, centers=np.array(centers), cluster_std=deviation, random_state=seed)[:2]

    return make


def _two_moons(count: int, seed: int) -> Examples:
    return datasets.make_moons(count, noise=0.3, random_state=seed)


def _circles(count: int, seed: int) -> Examples:
    return datasets.make_circles(count, noise=0.1, factor=0.4, random_state=seed)


def _anisotropic(count: int, seed: int) -> Examples:
    x, y = _blobs([(-2.0, 0.0), (0.0, 0.0), (2.0, 0.0)], 0.6)(count, seed)
    return x @ np.array([[0.6, -0.6], [-0.4, 0.8]]), y


def _checkerboard(cells: int) -> Callable[[int, int], Examples]:
    def make(count: int, seed: int) -> Examples:
        x = np.random.default_rng(seed).uniform(0, cells, (count, 2))
        return x, np.floor(x).sum(axis=1).astype(int) % 2

    return make


_GRID = [(float(i), float(j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
_MAKERS: dict[str, tuple[int, Callable[[int, int], Examples]]] = {
    "two_clusters": (2, _blobs([(-1.0, 0.0), (1.0, 0.0)], 0.4)),
    "three_clusters": (3, _blobs([(0.0, 1.0), (-0.87, -0.5), (0.87, -0.5)], 0.35)),
    "nine_clusters": (9, _blobs(_GRID, 0.15)),
    "two_moons": (2, _two_moons),
    "circles": (2, _circles),
    "anisotropic": (3, _anisotropic),
    "checkerboard": (2, _checkerboard(2)),
    "checkerboard_4": (2, _checkerboard(4)),
}
SPECS = {name: DataSpec(shape=(2,), num_classes=classes) for name, (classes, _) in _MAKERS.items()}


def load(name: str, data_dir: str, image_size: int, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Makes a toy set and takes rows of its training points; `data_dir` is not used. See `cake_jax.data.load`."""
    make = _MAKERS[name][1]
    (train_x, train_y), (test_x, test_y) = make(NUM_TRAIN, 0), make(NUM_TEST, 1)
    mean, std = train_x.mean(axis=0), train_x.std(axis=0)
    return ((train_x[train_rows] - mean) / std, train_y[train_rows]), ((test_x - mean) / std, test_y)


def train_size(name: str, data_dir: str) -> int:
    """Number of training points."""
    return NUM_TRAIN


def check(name: str, data_dir: str) -> None:
    """Always there."""
