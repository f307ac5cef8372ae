"""A user's `.npz` file: what is read and measured, and what is refused."""

import numpy as np
import pytest
from data_files import assert_refused, make_arrays

from cake_jax import data
from cake_jax.data import DataSettings
from cake_jax.types import CakeError, CakeWarning


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.npz"


@pytest.fixture
def settings(path):
    return DataSettings("npz", str(path))


@pytest.mark.parametrize("save_arrays", [np.savez, np.savez_compressed])
def test_npz_is_read_and_measured(save_arrays, path, settings):
    made = make_arrays()
    save_arrays(path, **made)
    found = data.load(settings)
    assert found.spec == data.spec_of(settings)
    assert (found.spec.shape, found.spec.num_classes) == ((6, 5, 3), 3)
    assert (found.spec.low, found.spec.high) == (0, 1)
    np.testing.assert_allclose(found.spec.mean, (made["x_train"] / 255).mean(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(found.spec.std, (made["x_train"] / 255).std(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(found.spec.denormalize(found.test_x) * 255, made["x_test"], atol=1e-3)
    assert found.train_y.tolist() == [0, 1, 2] * 10
    assert [part.dtype for part in found[1:]] == [np.float32, np.int32, np.float32, np.int32]
    assert len(data.load(DataSettings("npz", str(path), max_train_examples=7)).train_x) == 7
    assert data.train_size(settings) == 30


def test_grey_images_get_a_channel(path, settings):
    np.savez(path, **make_arrays(x_train=np.ones((30, 6, 5), np.uint8), x_test=np.ones((9, 6, 5), np.uint8)))
    assert data.load(settings).train_x.shape == (30, 6, 5, 1)


def test_vectors_are_standardised_and_unbounded(path, settings):
    vectors = np.random.default_rng(0).normal([1, 5], [1, 3], (30, 2))
    np.savez(path, **make_arrays(x_train=vectors, x_test=vectors[:9]))
    found = data.load(settings)
    assert (found.spec.shape, found.spec.low, found.spec.high) == ((2,), None, None)
    np.testing.assert_allclose(found.train_x.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.train_x.std(axis=0), 1, atol=1e-3)


@pytest.mark.parametrize(("low", "high", "bounds"), [(0, 1, (0, 1)), (-0.1, 1, (None, None)), (0, 1.1, (None, None))])
def test_images_of_floats_are_bounded_only_within_0_to_1(low, high, bounds, path, settings):
    images = np.random.default_rng(0).uniform(0.2, 0.8, (30, 6, 5, 1)).astype(np.float32)
    images[4, 3, 2], images[5, 3, 2] = low, high
    np.savez(path, **make_arrays(x_train=images, x_test=images[:9]))
    spec = data.spec_of(settings)
    assert (spec.low, spec.high) == bounds


def test_specification_is_measured_again_when_the_file_changes(path, settings):
    np.savez(path, **make_arrays())
    first = data.spec_of(settings)
    np.savez(path, **make_arrays(x_train=np.random.default_rng(1).integers(0, 90, (30, 6, 5, 3), dtype=np.uint8)))
    assert data.spec_of(settings).mean != first.mean


def test_check_and_train_size_read_headers_only(path, monkeypatch):
    np.savez(path, **make_arrays())
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("arrays are read"))
    settings = DataSettings("npz", str(path), max_train_examples=20)
    data.check(settings)
    assert data.train_size(settings) == 20


class Bomb:
    """An object that raises SystemExit when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "own.npz: no array y_test"),
        ({"x_train": np.array([Bomb()] * 30)}, "own.npz: x_train has Python objects"),
        ({"y_train": np.array([Bomb()] * 30)}, "own.npz: y_train has Python objects"),
        ({"x_train": np.zeros((30, 6, 5, 3), np.int64)}, "own.npz: x_train has type int64"),
        ({"y_train": np.zeros(30)}, "own.npz: y_train has type float64"),
        ({"y_train": np.zeros((30, 3), int)}, "own.npz: y_train has shape (30, 3)"),
        ({"x_train": np.zeros((30,), np.uint8)}, "own.npz: x_train has shape (30,)"),
        ({"x_train": np.zeros((0, 6, 5, 3), np.uint8)}, "own.npz: x_train has shape (0, 6, 5, 3)"),
        ({"y_train": np.zeros(29, int)}, "own.npz: x_train has 30 examples, but y_train has 29"),
        ({"x_test": np.zeros((9, 6, 4, 3), np.uint8)}, "own.npz: x_test differs from x_train"),
        ({"x_test": np.zeros((9, 6, 5, 3))}, "own.npz: x_test differs from x_train"),
        ({"y_train": np.arange(30) % 3 - 1}, "own.npz: y_train has the label -1"),
        ({"y_train": np.zeros(30, int)}, "own.npz: y_train has 1 of the classes 0 to 0"),
        ({"y_train": np.arange(30) % 2 * 10**9}, "own.npz: y_train has 2 of the classes 0 to 1000000000"),
        ({"y_test": np.full(9, 3)}, "'npz' has the label 3, but labels end at 2"),
        ({"x_train": np.full((30, 6, 5, 3), np.nan), "x_test": np.zeros((9, 6, 5, 3))}, "own.npz: x_train has NaN"),
    ],
)
def test_unusable_arrays_are_refused(changes, message, path, settings):
    np.savez(path, **make_arrays(**changes))
    assert_refused(settings, message)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_damaged_file_is_refused(damage, path, settings):
    np.savez(path, **make_arrays())
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:900]
    elif damage == "flipped":
        content[900] ^= 0xFF
    else:
        content = b"hello"
    path.write_bytes(content)
    assert_refused(settings, str(path))


@pytest.mark.parametrize("file", ["", "nowhere.npz"])
def test_missing_file_is_refused(file, tmp_path):
    settings = DataSettings("npz", file and str(tmp_path / file))
    assert_refused(settings, "dataset.data_dir")
    with pytest.raises(CakeError, match=r"dataset\.data_dir"):
        data.check(settings)


def test_a_file_with_test_data_alone_is_read(path, settings):
    made = make_arrays()
    np.savez(path, x_test=made["x_test"], y_test=made["y_test"])
    with pytest.warns(CakeWarning, match="there are no training inputs, so mean and standard deviation are those of"):
        found = data.load(settings)
    assert (found.train_x.shape, found.train_y.shape) == ((0, 6, 5, 3), (0,))
    assert (found.test_x.shape, found.spec.num_classes) == ((9, 6, 5, 3), 3)
    np.testing.assert_allclose(found.spec.mean, (made["x_test"] / 255).mean(axis=(0, 1, 2)), rtol=1e-3)
    data.check(settings)
    assert data.train_size(settings) == 0
    with pytest.raises(CakeError, match=r"own\.npz has test data alone, so it rests"):
        data.check_training(settings, "it rests")


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_a_file_that_lacks_one_array_is_refused(name, path, settings):
    made = make_arrays()
    del made[name]
    np.savez(path, **made)
    assert_refused(settings, f"no array {name}")
