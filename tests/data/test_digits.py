"""The digits of scikit-learn: shapes, split, and every image once."""

import numpy as np
from data_files import rows
from sklearn.datasets import load_digits

from cake_jax import data
from cake_jax.data import DataSettings


def test_digits_split_is_stratified():
    digits = data.load(DataSettings("digits"))
    assert digits.spec == data.spec_of(DataSettings("digits"))
    assert (digits.spec.shape, digits.spec.num_classes) == ((8, 8, 1), 10)
    assert (digits.train_x.shape, digits.train_y.shape) == ((1437, 8, 8, 1), (1437,))
    assert (digits.test_x.shape, digits.test_y.shape) == ((360, 8, 8, 1), (360,))
    assert [part.dtype for part in digits[1:]] == [np.float32, np.int32, np.float32, np.int32]
    assert abs(digits.train_x.mean()) < 0.01
    assert abs(digits.train_x.std() - 1) < 0.01
    total = np.bincount(np.concatenate([digits.train_y, digits.test_y]))
    assert np.abs(np.bincount(digits.test_y) - total * 360 / 1797).max() <= 1


def test_digits_are_those_of_scikit_learn_each_once():
    digits = data.load(DataSettings("digits"))
    pixels = np.rint(digits.spec.denormalize(np.concatenate([digits.train_x, digits.test_x])))
    labels = np.concatenate([digits.train_y, digits.test_y])
    images, wanted = load_digits(return_X_y=True)
    found = sorted(zip(rows(pixels.astype(np.uint8)), labels.tolist(), strict=True))
    assert found == sorted(zip(rows(images.astype(np.uint8)), wanted.tolist(), strict=True))
