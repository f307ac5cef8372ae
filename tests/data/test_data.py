"""The registry of data sets: names, specifications, limits, and sources that are added from outside."""

import dataclasses

import numpy as np
import pytest
from data_files import assert_same_data, make_folder, rows

from cake_jax import data
from cake_jax.data import DataSettings
from cake_jax.types import CakeError, DataSpec

TOYS = {
    "two_clusters",
    "three_clusters",
    "nine_clusters",
    "two_moons",
    "circles",
    "anisotropic",
    "checkerboard",
    "checkerboard_4",
}
# Number of training examples, as published.
TRAIN_SIZES = {
    "digits": 1437,
    "mnist": 60_000,
    "mnist32": 60_000,
    "fashion_mnist32": 60_000,
    "fashion_mnist": 60_000,
    "cifar10": 50_000,
    "cifar2": 10_000,
    "cifar100": 50_000,
    "svhn_cropped": 73_257,
    **dict.fromkeys(TOYS, 10_000),
}
MEASURED = {"folder", "npz"}
SPEC = DataSpec((2,), 2, mean=(1.0, 0.0), std=(2.0, 4.0))


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A source of 20 vectors (row number, 8), whose labels are the row numbers modulo `num_labels`."""

    measured: bool = False
    num_labels: int = 2

    def spec(self, settings):
        return SPEC

    def check(self, settings):
        if (settings.data_dir, settings.image_size) != ("here", 3):
            raise CakeError(f"dataset.data_dir: nothing in {settings.data_dir}")

    def train_size(self, settings):
        self.check(settings)
        return 20

    def load(self, settings, train_rows):
        self.check(settings)
        x = np.stack([np.arange(20), np.full(20, 8)], axis=1)
        y = np.arange(20) % self.num_labels
        return (x[train_rows], y[train_rows]), (x, y)


@pytest.fixture
def numbered(monkeypatch):
    """Settings of a source that was added to the registry."""
    monkeypatch.setitem(data.SOURCES, "numbered", Numbered())
    return DataSettings("numbered", "here", 3)


def test_added_source_loads_normalised(numbered):
    assert "numbered" in data.SOURCES
    data.check(numbered)
    loaded = data.load(numbered)
    assert loaded.spec == data.spec_of(numbered) == SPEC
    for x, y in ((loaded.train_x, loaded.train_y), (loaded.test_x, loaded.test_y)):
        np.testing.assert_array_equal(x[:, 0], (np.arange(20) - 1) / 2)
        np.testing.assert_array_equal(x[:, 1], 2)
        assert y.tolist() == [0, 1] * 10
    assert [part.dtype for part in loaded[1:]] == [np.float32, np.int32, np.float32, np.int32]


@pytest.mark.parametrize("function", [data.check, data.train_size, data.load])
def test_added_source_refuses_a_wrong_folder(numbered, function):
    with pytest.raises(CakeError, match=r"dataset\.data_dir: nothing in elsewhere"):
        function(dataclasses.replace(numbered, data_dir="elsewhere"))


@pytest.mark.parametrize("limit", [1, 7, 19, 20, 30])
def test_added_source_reads_at_most_max_train_examples(numbered, limit):
    limited = dataclasses.replace(numbered, max_train_examples=limit)
    loaded, count = data.load(limited), min(limit, 20)
    numbers = loaded.train_x[:, 0] * 2 + 1
    assert len(set(numbers)) == len(numbers) == data.train_size(limited) == count
    np.testing.assert_array_equal(loaded.train_y, numbers % 2)
    assert len(loaded.test_x) == 20


def test_label_beyond_the_classes_is_refused(numbered, monkeypatch):
    monkeypatch.setitem(data.SOURCES, "numbered", Numbered(num_labels=3))
    with pytest.raises(CakeError, match="'numbered' has the label 2, but labels end at 1"):
        data.load(numbered)


@pytest.mark.parametrize("measured", [True, False])
def test_saved_specification_counts_only_if_the_source_is_measured(numbered, monkeypatch, measured):
    monkeypatch.setitem(data.SOURCES, "numbered", Numbered(measured))
    saved = dataclasses.replace(SPEC, mean=(5.0,))
    assert data.spec_of(numbered, saved) == (saved if measured else SPEC)
    assert data.spec_of(numbered, None) == SPEC


def test_load_normalises_by_a_given_specification(numbered):
    given = dataclasses.replace(SPEC, mean=(0.0,), std=(1.0,))
    loaded = data.load(numbered, given)
    assert loaded.spec == given
    np.testing.assert_array_equal(loaded.test_x[:, 0], np.arange(20))


def test_given_specification_of_another_shape_is_refused(tmp_path):
    make_folder(tmp_path)
    spec = data.spec_of(DataSettings("imagenet12"))
    with pytest.raises(CakeError, match=r"'folder' have shape \(8, 10, 3\), not \(64, 64, 3\)"):
        data.load(DataSettings("folder", str(tmp_path)), spec)


def test_names_of_the_registry():
    others = {"tiny_imagenet", "imagenet12", "none"} | MEASURED
    assert set(data.SOURCES) == set(TRAIN_SIZES) | others
    assert {name for name, source in data.SOURCES.items() if source.measured} == {*MEASURED, "none"}


@pytest.mark.parametrize("function", [data.load, data.spec_of, data.check, data.train_size])
def test_unknown_name_is_refused(function):
    with pytest.raises(CakeError, match=r"dataset\.name: 'no_such_set'.*two_moons.*mnist"):
        function(DataSettings("no_such_set"))


@pytest.mark.parametrize("field", ["image_size", "max_train_examples"])
def test_negative_number_is_refused(field):
    with pytest.raises(CakeError, match=rf"dataset\.{field}: -1"):
        DataSettings("digits", **{field: -1})


@pytest.mark.parametrize("name", sorted(set(data.SOURCES) - MEASURED - {"none"}))
def test_unmeasured_specification_needs_no_data(name, without_tensorflow):
    spec = data.spec_of(DataSettings(name))
    assert spec.is_image == (name not in TOYS)
    assert len(spec.class_names) in (0, spec.num_classes)
    assert len(set(spec.class_names)) == len(spec.class_names)


@pytest.mark.parametrize("name", sorted(TRAIN_SIZES))
def test_train_size_needs_no_data(name, without_tensorflow):
    assert data.train_size(DataSettings(name)) == TRAIN_SIZES[name]


def test_cifar100_class_names_are_in_alphabetical_order():
    names = data.spec_of(DataSettings("cifar100")).class_names
    assert names == tuple(sorted(names))


@pytest.mark.parametrize("name", sorted([*TOYS, "digits"]))
def test_data_do_not_depend_on_numpy_seed(name):
    np.random.seed(1)
    first = data.load(DataSettings(name))
    np.random.seed(2)
    assert_same_data(first, data.load(DataSettings(name)))


@pytest.mark.parametrize("name", ["two_moons", "digits"])
def test_max_train_examples_keeps_the_first_of_a_fixed_shuffle(name):
    whole = data.load(DataSettings(name))
    few, more = (data.load(DataSettings(name, max_train_examples=count)) for count in (100, 700))
    assert (len(few.train_x), len(few.train_y), len(more.train_x)) == (100, 100, 700)
    np.testing.assert_array_equal(few.train_x, more.train_x[:100])
    np.testing.assert_array_equal(few.train_y, more.train_y[:100])
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert len(set(rows(more.train_x))) == 700
    assert [labels[row] for row in rows(more.train_x)] == more.train_y.tolist()
    assert set(rows(few.train_x)) != set(rows(whole.train_x[:100]))
    np.testing.assert_array_equal(few.test_x, whole.test_x)
    assert_same_data(few, data.load(DataSettings(name, max_train_examples=100)))


@pytest.mark.parametrize("name", ["two_moons", "digits"])
def test_max_train_examples_above_the_size_keeps_all(name):
    assert_same_data(data.load(DataSettings(name, max_train_examples=20_000)), data.load(DataSettings(name)))


@pytest.mark.parametrize("name", ["two_clusters", "digits"])
@pytest.mark.parametrize("count", [0, 100, 20_000])
def test_train_size_equals_that_of_load(name, count):
    settings = DataSettings(name, max_train_examples=count)
    assert data.train_size(settings) == len(data.load(settings).train_x)
