"""Helpers for tests that need data sets: small folders of images, arrays as Keras names them, and comparisons."""

import numpy as np
import pytest
from PIL import Image

from cake_jax import data
from cake_jax.types import CakeError


def rows(x):
    """Every example as bytes."""
    return [row.tobytes() for row in x]


def assert_same_data(first, second):
    assert first.spec == second.spec
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def assert_refused(settings, *parts):
    """`load` refuses the settings with one line that has all the parts."""
    with pytest.raises(CakeError) as caught:
        data.load(settings)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def random_pixels(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)


def make_folder(root, *, shape=(8, 10, 3), classes=("ant", "bee", "cat"), counts=(6, 2), test="test"):
    """A folder of random images. Returns them by split and class, in the order of their names."""
    images = {}
    for split, count in zip(("train", test), counts, strict=True):
        for label, name in enumerate(classes):
            images[split, name] = [random_pixels([len(split), label, i], shape) for i in range(count)]
            for number, pixels in enumerate(images[split, name]):
                save_image(root / split / name / f"{number:02d}.png", pixels)
    return images


def make_arrays(**changes):
    """Small arrays with Keras's names. A value of None leaves an array out."""
    rng = np.random.default_rng(0)
    made = {
        "x_train": rng.integers(0, 200, (30, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(30, dtype=np.uint8)[:, None] % 3,  # a column, like Keras's labels of CIFAR-10
        "x_test": rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}
