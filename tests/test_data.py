"""The data sets: what is in them, that they are always the same, and what happens where they are not there."""

import io
import shutil
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from cake_jax import data
from cake_jax.types import CakeError

# Name, number of classes, and the range that the accuracy of nearest neighbours must lie in.
TOYS = [
    ("two_clusters", 2, 0.98, 1),
    ("three_clusters", 3, 0.97, 1),
    ("nine_clusters", 9, 0.98, 1),
    ("two_moons", 2, 0.90, 0.93),
    ("circles", 2, 0.98, 1),
    ("anisotropic", 3, 0.90, 0.97),
    ("checkerboard", 2, 0.97, 1),
    ("checkerboard_4", 2, 0.94, 1),
]
NAMES = [name for name, *_ in TOYS]
# Shape of the images, classes, and the published mean and deviation of the pixels in [0, 1].
IMAGE_SETS = {
    "mnist": ((28, 28, 1), 10, [0.1307], [0.3081]),
    "fashion_mnist": ((28, 28, 1), 10, [0.2860], [0.3530]),
    "cifar10": ((32, 32, 3), 10, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ((32, 32, 3), 100, [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "svhn_cropped": ((32, 32, 3), 10, [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
}
# Number of training examples, as published.
TRAIN_SIZES = {
    "digits": 1437,
    "mnist": 60_000,
    "mnist32": 60_000,
    "fashion_mnist": 60_000,
    "cifar10": 50_000,
    "cifar2": 10_000,
    "cifar100": 50_000,
    "svhn_cropped": 73_257,
    **dict.fromkeys(NAMES, 10_000),
}


def rows(x):
    """Every example as bytes."""
    return [row.tobytes() for row in x]


def assert_equal(first, second):
    assert first.spec == second.spec
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture
def without_tensorflow(monkeypatch):
    """As if TensorFlow were not installed."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.parametrize(("name", "classes"), [toy[:2] for toy in TOYS])
def test_toy_set(name, classes):
    toy = data.load(name)
    assert toy.spec == data.spec_of(name)
    assert (toy.spec.shape, toy.spec.num_classes) == ((2,), classes)
    assert (toy.train_x.shape, toy.train_y.shape) == ((10_000, 2), (10_000,))
    assert (toy.test_x.shape, toy.test_y.shape) == ((5_000, 2), (5_000,))
    assert [part.dtype for part in toy[1:]] == [np.float32, np.int32, np.float32, np.int32]
    for labels in (toy.train_y, toy.test_y):
        assert sorted(set(labels)) == list(range(classes))
        assert np.bincount(labels).min() > 0.9 * len(labels) / classes
    np.testing.assert_allclose(toy.train_x.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(toy.train_x.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(toy.test_x.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(toy.test_x.std(axis=0), 1, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_toy_test_points_are_fresh(name):
    toy = data.load(name)
    train, test = set(rows(toy.train_x)), set(rows(toy.test_x))
    assert (len(train), len(test)) == (10_000, 5_000)
    assert not train & test


@pytest.mark.parametrize(("name", "low", "high"), [(name, low, high) for name, _, low, high in TOYS])
def test_toy_labels_can_be_learned_as_far_as_the_noise_allows(name, low, high):
    toy = data.load(name)
    neighbors = KNeighborsClassifier(25).fit(toy.train_x, toy.train_y)
    assert low <= neighbors.score(toy.test_x, toy.test_y) <= high


@pytest.mark.parametrize("name", [*NAMES, "digits"])
def test_same_on_each_call(name):
    np.random.seed(1)  # what others do to the global generator does not matter
    first = data.load(name)
    np.random.seed(2)
    assert_equal(first, data.load(name))


def test_digits():
    digits = data.load("digits")
    assert digits.spec == data.spec_of("digits")
    assert (digits.spec.shape, digits.spec.num_classes) == ((8, 8, 1), 10)
    assert (digits.train_x.shape, digits.train_y.shape) == ((1437, 8, 8, 1), (1437,))
    assert (digits.test_x.shape, digits.test_y.shape) == ((360, 8, 8, 1), (360,))
    assert [part.dtype for part in digits[1:]] == [np.float32, np.int32, np.float32, np.int32]
    assert abs(digits.train_x.mean()) < 0.01
    assert abs(digits.train_x.std() - 1) < 0.01
    total = np.bincount(np.concatenate([digits.train_y, digits.test_y]))
    assert np.abs(np.bincount(digits.test_y) - total * 360 / 1797).max() <= 1


def test_digits_are_those_of_scikit_learn_each_once():
    digits = data.load("digits")
    pixels = np.rint(digits.spec.denormalize(np.concatenate([digits.train_x, digits.test_x])))
    labels = np.concatenate([digits.train_y, digits.test_y])
    images, wanted = load_digits(return_X_y=True)
    got = sorted(zip(rows(pixels.astype(np.uint8)), labels.tolist(), strict=True))
    assert got == sorted(zip(rows(images.astype(np.uint8)), wanted.tolist(), strict=True))


@pytest.mark.parametrize("name", ["two_moons", "digits"])
def test_max_train_examples(name):
    whole, few, more = data.load(name), *(data.load(name, max_train_examples=count) for count in (100, 700))
    assert (len(few.train_x), len(few.train_y), len(more.train_x)) == (100, 100, 700)
    np.testing.assert_array_equal(few.train_x, more.train_x[:100])
    np.testing.assert_array_equal(few.train_y, more.train_y[:100])
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert len(set(rows(more.train_x))) == 700
    assert [labels[row] for row in rows(more.train_x)] == more.train_y.tolist()
    assert set(rows(few.train_x)) != set(rows(whole.train_x[:100]))  # shuffled, not the first
    np.testing.assert_array_equal(few.test_x, whole.test_x)
    assert_equal(few, data.load(name, max_train_examples=100))


@pytest.mark.parametrize("name", ["two_moons", "digits"])
@pytest.mark.parametrize("count", [0, 20_000])
def test_max_train_examples_that_keeps_all(name, count):
    assert_equal(data.load(name, max_train_examples=count), data.load(name))


@pytest.mark.parametrize("name", ["two_clusters", "digits"])
@pytest.mark.parametrize("count", [0, 100, 20_000])
def test_train_size_is_that_of_load(name, count):
    assert data.train_size(name, count) == len(data.load(name, max_train_examples=count).train_x)


@pytest.mark.parametrize("function", [data.load, data.spec_of, data.check, data.train_size])
def test_unknown_name(function):
    with pytest.raises(CakeError, match=r"dataset\.name: 'no_such_set'.*two_moons.*mnist"):
        function("no_such_set")


@pytest.mark.parametrize("name", data.SPECS)
def test_spec_is_known_without_data(name, without_tensorflow):
    spec = data.spec_of(name)
    assert spec.is_image == (name not in NAMES)
    assert len(spec.class_names) in (0, spec.num_classes)
    assert len(set(spec.class_names)) == len(spec.class_names)
    if name in TRAIN_SIZES:
        assert data.train_size(name) == TRAIN_SIZES[name]


def test_the_set_of_names():
    own = {"folder", "npz"}
    folders = {"tiny_imagenet", "imagenet12"}
    assert set(data.NAMES) == set(TRAIN_SIZES) | folders | own
    assert set(data.SPECS) == set(data.NAMES) - own
    assert data.spec_of("cifar100").class_names == tuple(sorted(data.spec_of("cifar100").class_names))


@pytest.mark.parametrize("function", [data.load, data.check])
@pytest.mark.parametrize("name", [*IMAGE_SETS, "mnist32", "cifar2"])
def test_image_set_that_is_not_there(function, name, tmp_path, without_tensorflow):
    started = time.perf_counter()
    with pytest.raises(CakeError) as caught:
        function(name, data_dir=str(tmp_path))
    assert time.perf_counter() - started < 10
    for part in ("dataset.data_dir", {"mnist32": "mnist", "cifar2": "cifar10"}.get(name, name), str(tmp_path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def make_images(name):
    """1,003 (where the pages of decoding matter) or 43 training and 7 test images, all different, and their labels."""
    (shape, classes, *_), rng = IMAGE_SETS[name], np.random.default_rng(3)
    return {
        split: (rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, classes, count))
        for split, count in (("train", 1003 if name in ("mnist", "cifar10") else 43), ("test", 7))
    }


def prepare(set_name, data_dir):
    """Lets TFDS prepare `make_images` in array_record format, as it prepares the real set, but without TensorFlow."""
    shape, classes = IMAGE_SETS[set_name][:2]

    def png(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(buffer, format="png")
        buffer.seek(0)
        return buffer

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.builder_cls(set_name).VERSION

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=classes)
            features = {"image": tfds.features.Image(shape=shape), "label": label}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(*part) for split, part in make_images(set_name).items()}

        def _generate_examples(self, images, labels):
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                yield number, {"image": png(pixels), "label": int(label)}

    Small(data_dir=data_dir, file_format="array_record").download_and_prepare()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which TFDS has prepared small sets under the names of the real ones, said to be as small."""
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        for name in IMAGE_SETS:
            prepare(name, folder)
            patch.setitem(data.tfds.TRAIN_SIZES, name, len(make_images(name)["train"][1]))
        patch.setitem(data.tfds.TRAIN_SIZES, "mnist32", data.tfds.TRAIN_SIZES["mnist"])
        patch.setitem(data.tfds.TRAIN_SIZES, "cifar2", int((make_images("cifar10")["train"][1] < 2).sum()))
        yield folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_prepared_image_set(name, prepared, without_tensorflow, cache):
    data.check(name, data_dir=str(prepared))
    images = data.load(name, data_dir=str(prepared))
    shape, classes, mean, std = IMAGE_SETS[name]
    assert images.spec.num_classes == classes
    assert images.spec == data.spec_of(name)
    assert images.spec.shape == shape
    assert [part.dtype for part in images[1:]] == [np.float32, np.int32, np.float32, np.int32]
    for split, x, y in (("train", images.train_x, images.train_y), ("test", images.test_x, images.test_y)):
        pixels, labels = make_images(name)[split]
        np.testing.assert_array_equal(y, labels)
        np.testing.assert_array_equal(np.rint(images.spec.denormalize(x) * 255), pixels)
        np.testing.assert_allclose(x, (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_mnist_padded_to_32(prepared, without_tensorflow, cache):
    padded, plain = (data.load(name, data_dir=str(prepared)) for name in ("mnist32", "mnist"))
    assert padded.train_x.shape == (1003, 32, 32, 1)
    for x, y in ((padded.train_x, plain.train_x), (padded.test_x, plain.test_x)):
        pixels, expected = padded.spec.denormalize(x), plain.spec.denormalize(y)
        np.testing.assert_allclose(pixels[:, 2:30, 2:30], expected, atol=1e-6)
        pixels[:, 2:30, 2:30] = 0
        np.testing.assert_allclose(pixels, 0, atol=1e-6)
    np.testing.assert_array_equal(padded.train_y, plain.train_y)
    # A padded pixel is 0 with probability 1 - (28 / 32)^2.
    share, (mean,), (std,) = (28 / 32) ** 2, plain.spec.mean, plain.spec.std
    assert padded.spec.mean[0] == pytest.approx(share * mean, abs=1e-4)
    assert padded.spec.std[0] == pytest.approx(np.sqrt(share * (std**2 + mean**2) - (share * mean) ** 2), abs=1e-4)


@pytest.mark.parametrize("count", [0, 30])
def test_cifar10_cut_to_its_first_two_classes(count, prepared, without_tensorflow, cache):
    two = data.load("cifar2", data_dir=str(prepared), max_train_examples=count)
    whole = data.load("cifar10", data_dir=str(prepared))
    assert two.spec.class_names == ("airplane", "automobile")
    assert len(two.train_x) == data.train_size("cifar2", count)
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert [labels[row] for row in rows(two.train_x)] == two.train_y.tolist()
    np.testing.assert_array_equal(two.test_x, whole.test_x[whole.test_y < 2])
    np.testing.assert_array_equal(two.test_y, whole.test_y[whole.test_y < 2])
    if not count:
        np.testing.assert_array_equal(two.train_x, whole.train_x[whole.train_y < 2])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other arrays", "fewer"])
def test_a_damaged_cache_is_decoded_again(damage, prepared, without_tensorflow, cache, decoded):
    whole = data.load("fashion_mnist", data_dir=str(prepared))
    for path in (cache / "cake_jax" / "data").glob("*.npz"):
        content = bytearray(path.read_bytes())
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            content[len(content) // 3] ^= 0xFF
            path.write_bytes(content)
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "text":
            path.write_text("no arrays")
        elif damage == "other arrays":
            np.savez(path, x=np.zeros(3))
        else:
            np.savez(path, images=np.zeros((3, 28, 28, 1), np.uint8), labels=np.zeros(3, int))
    decoded.clear()
    assert_equal(data.load("fashion_mnist", data_dir=str(prepared)), whole)
    assert len(decoded) == 50
    decoded.clear()
    assert_equal(data.load("fashion_mnist", data_dir=str(prepared)), whole)
    assert not decoded  # it is whole again


@pytest.mark.parametrize("few_first", [True, False])
def test_prepared_image_set_with_fewer_examples(few_first, prepared, without_tensorflow, cache):
    counts = (20, 0) if few_first else (0, 20)
    few, whole = sorted(
        (data.load("mnist", data_dir=str(prepared), max_train_examples=count) for count in counts),
        key=lambda dataset: len(dataset.train_x),
    )
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert [labels[row] for row in rows(few.train_x)] == few.train_y.tolist()
    assert (len(few.train_x), len(few.test_x)) == (20, 7)


@pytest.fixture
def decoded(monkeypatch):
    """Numbers of the examples that were decoded, in order."""
    numbers, real = [], data.tfds._decode

    def counted(builder, split, rows):
        numbers.extend((split, int(row)) for row in rows)
        return real(builder, split, rows)

    monkeypatch.setattr(data.tfds, "_decode", counted)
    return numbers


def test_images_are_decoded_once(prepared, without_tensorflow, cache, decoded):
    first = data.load("cifar10", data_dir=str(prepared))
    assert sorted(decoded) == [("test", row) for row in range(7)] + [("train", row) for row in range(1003)]
    decoded.clear()
    assert_equal(data.load("cifar10", data_dir=str(prepared)), first)
    assert not decoded


def test_only_the_images_that_are_kept_are_decoded(prepared, without_tensorflow, cache, decoded):
    data.load("mnist", data_dir=str(prepared), max_train_examples=20)
    assert len([split for split, _ in decoded if split == "train"]) == 20


def test_images_of_another_folder_are_decoded_anew(prepared, tmp_path, without_tensorflow, cache, decoded):
    data.load("mnist", data_dir=str(prepared))
    shutil.copytree(prepared / "mnist", tmp_path / "other" / "mnist")
    decoded.clear()
    data.load("mnist", data_dir=str(tmp_path / "other"))
    assert len(decoded) == 1010


def test_a_cache_that_cannot_be_written_does_no_harm(prepared, tmp_path, monkeypatch, without_tensorflow):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(data.load("mnist", data_dir=str(prepared)).train_x) == 1003


def test_default_folder_is_that_of_tfds(prepared, monkeypatch, without_tensorflow):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert_equal(data.load("mnist"), data.load("mnist", data_dir=str(prepared)))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing", "no json", "tfrecord"])
def test_image_set_that_cannot_be_read(damage, prepared, tmp_path, without_tensorflow):
    shutil.copytree(prepared / "mnist", tmp_path / "mnist")
    shard = next((tmp_path / "mnist").rglob("*train*"))
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        shard.write_bytes(content)
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "missing":
        shard.unlink()
    elif damage == "no json":
        (shard.parent / "dataset_info.json").write_text("{")
    else:
        about = shard.parent / "dataset_info.json"
        about.write_text(about.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(CakeError) as caught:
        data.load("mnist", data_dir=str(tmp_path))
    for part in ("dataset.data_dir", "mnist", str(tmp_path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
