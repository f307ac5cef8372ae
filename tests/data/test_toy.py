"""The toy sets: shapes, balance, fresh test points, and labels that can be learned."""

import numpy as np
import pytest
from data_files import rows
from sklearn.neighbors import KNeighborsClassifier

from cake_jax import data
from cake_jax.data import DataSettings

# Name, number of classes, and the range of the accuracy of nearest neighbours. The noise of a set limits the accuracy.
TOYS = [
    ("two_clusters", 2, 0.98, 1),
    ("three_clusters", 3, 0.97, 1),
    ("nine_clusters", 9, 0.98, 1),
    ("two_moons", 2, 0.90, 0.93),
    ("circles", 2, 0.98, 1),
    ("anisotropic", 2, 0.90, 0.97),
    ("checkerboard", 2, 0.97, 1),
    ("checkerboard_4", 2, 0.97, 1),
]


@pytest.mark.parametrize(("name", "classes"), [toy[:2] for toy in TOYS])
def test_toy_set_is_balanced_and_standardised(name, classes):
    toy = data.load(DataSettings(name))
    assert toy.spec == data.spec_of(DataSettings(name))
    assert (toy.spec.shape, toy.spec.num_classes) == ((2,), classes)
    assert (toy.train_x.shape, toy.train_y.shape) == ((10_000, 2), (10_000,))
    assert (toy.test_x.shape, toy.test_y.shape) == ((5_000, 2), (5_000,))
    assert [part.dtype for part in toy[1:]] == [np.float32, np.int32, np.float32, np.int32]
    for labels in (toy.train_y, toy.test_y):
        assert sorted(set(labels)) == list(range(classes))
        # The checkerboard has five cells of one class and four of the other.
        assert np.bincount(labels).min() > 0.88 * len(labels) / classes
    np.testing.assert_allclose(toy.train_x.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(toy.train_x.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(toy.test_x.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(toy.test_x.std(axis=0), 1, atol=0.1)


@pytest.mark.parametrize("name", [name for name, *_ in TOYS])
def test_toy_test_points_are_not_training_points(name):
    toy = data.load(DataSettings(name))
    train, test = set(rows(toy.train_x)), set(rows(toy.test_x))
    assert (len(train), len(test)) == (10_000, 5_000)
    assert not train & test


@pytest.mark.parametrize(("name", "low", "high"), [(name, low, high) for name, _, low, high in TOYS])
def test_toy_labels_can_be_learned(name, low, high):
    toy = data.load(DataSettings(name))
    neighbors = KNeighborsClassifier(25).fit(toy.train_x, toy.train_y)
    assert low <= neighbors.score(toy.test_x, toy.test_y) <= high
