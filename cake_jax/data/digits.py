"""Scikit-learn's handwritten digits: 1,797 real images of 8 x 8, shipped with the library, so never a download."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cake_jax.types import DataSpec, Examples

SPECS = {
    "digits": DataSpec(
        shape=(8, 8, 1),
        num_classes=10,
        mean=(4.884,),
        std=(6.017,),
        low=0.0,
        high=16.0,
        class_names=tuple("0123456789"),
    )
}


def load(name: str, data_dir: str, image_size: int, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Rows of the 1,437 training images, and 360 test images, of a fixed stratified split; no `data_dir` is used."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.reshape(-1, 8, 8, 1), labels, test_size=360, stratify=labels, random_state=0
    )
    return (train_x[train_rows], train_y[train_rows]), (test_x, test_y)


def train_size(name: str, data_dir: str) -> int:
    """Number of training images."""
    return 1437


def check(name: str, data_dir: str) -> None:
    """Always there."""
