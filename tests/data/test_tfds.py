"""Image sets of TFDS: what is read, what is cached, and what is refused. TFDS prepares small sets in their place."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_files import assert_refused, assert_same_data, rows
from PIL import Image

from cake_jax import data
from cake_jax.data import DataSettings
from cake_jax.types import CakeError

# Shape of the images, number of classes, and the published mean and standard deviation of the pixels in [0, 1].
IMAGE_SETS = {
    "mnist": ((28, 28, 1), 10, [0.1307], [0.3081]),
    "fashion_mnist": ((28, 28, 1), 10, [0.2860], [0.3530]),
    "cifar10": ((32, 32, 3), 10, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ((32, 32, 3), 100, [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "svhn_cropped": ((32, 32, 3), 10, [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
}
# Sets that are made of another set.
MADE_OF = {"mnist32": "mnist", "fashion_mnist32": "fashion_mnist", "cifar2": "cifar10"}

pytestmark = pytest.mark.usefixtures("without_tensorflow")


def make_images(name):
    """Random training and test images with labels. Sets of 1,003 images are decoded in more than one part."""
    (shape, classes, *_), rng = IMAGE_SETS[name], np.random.default_rng(3)
    return {
        split: (rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, classes, count))
        for split, count in (("train", 1003 if name in ("mnist", "cifar10") else 43), ("test", 7))
    }


def prepare(set_name, data_dir):
    """Prepares `make_images` in array_record format, as TFDS prepares the real set."""
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
    """A folder in which TFDS has prepared small sets under the names of the real sets."""
    folder = tmp_path_factory.mktemp("tfds")
    labels = {}
    for name in IMAGE_SETS:
        prepare(name, folder)
        labels[name] = make_images(name)["train"][1]
    labels |= {"mnist32": labels["mnist"], "cifar2": labels["cifar10"][labels["cifar10"] < 2]}
    with pytest.MonkeyPatch.context() as patch:
        for name, labels_of in labels.items():
            patch.setitem(data.SOURCES, name, dataclasses.replace(data.SOURCES[name], num_train=len(labels_of)))
        yield str(folder)


@pytest.fixture
def decoded(monkeypatch):
    """The split and number of every example that is decoded, in order."""
    numbers, real = [], tfds.core.DatasetBuilder.as_data_source

    class Recorder:
        def __init__(self, source, split):
            self.source, self.split = source, split

        def __getitems__(self, wanted):
            numbers.extend((self.split, int(row)) for row in wanted)
            return self.source.__getitems__(wanted)

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "as_data_source", lambda self, split: Recorder(real(self, split), split)
    )
    return numbers


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_prepared_set_is_read(name, prepared):
    settings = DataSettings(name, prepared)
    data.check(settings)
    images = data.load(settings)
    shape, classes, mean, std = IMAGE_SETS[name]
    assert images.spec == data.spec_of(settings)
    assert (images.spec.shape, images.spec.num_classes) == (shape, classes)
    assert [part.dtype for part in images[1:]] == [np.float32, np.int32, np.float32, np.int32]
    for split, x, y in (("train", images.train_x, images.train_y), ("test", images.test_x, images.test_y)):
        pixels, labels = make_images(name)[split]
        np.testing.assert_array_equal(y, labels)
        np.testing.assert_array_equal(np.rint(images.spec.denormalize(x) * 255), pixels)
        np.testing.assert_allclose(x, (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_mnist32_is_mnist_with_a_black_border(prepared):
    padded, plain = (data.load(DataSettings(name, prepared)) for name in ("mnist32", "mnist"))
    assert padded.train_x.shape == (1003, 32, 32, 1)
    for x, y in ((padded.train_x, plain.train_x), (padded.test_x, plain.test_x)):
        pixels, expected = padded.spec.denormalize(x), plain.spec.denormalize(y)
        np.testing.assert_allclose(pixels[:, 2:30, 2:30], expected, atol=1e-6)
        pixels[:, 2:30, 2:30] = 0
        np.testing.assert_allclose(pixels, 0, atol=1e-6)
    np.testing.assert_array_equal(padded.train_y, plain.train_y)
    # A share of (28 / 32)^2 of the pixels is MNIST's, the rest is 0.
    share, (mean,), (std,) = (28 / 32) ** 2, plain.spec.mean, plain.spec.std
    assert padded.spec.mean[0] == pytest.approx(share * mean, abs=1e-4)
    assert padded.spec.std[0] == pytest.approx(np.sqrt(share * (std**2 + mean**2) - (share * mean) ** 2), abs=1e-4)


@pytest.mark.parametrize("count", [0, 30])
def test_cifar2_is_the_first_two_classes_of_cifar10(count, prepared):
    settings = DataSettings("cifar2", prepared, max_train_examples=count)
    two, whole = data.load(settings), data.load(DataSettings("cifar10", prepared))
    assert two.spec.class_names == ("airplane", "automobile")
    assert len(two.train_x) == data.train_size(settings)
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert [labels[row] for row in rows(two.train_x)] == two.train_y.tolist()
    np.testing.assert_array_equal(two.test_x, whole.test_x[whole.test_y < 2])
    np.testing.assert_array_equal(two.test_y, whole.test_y[whole.test_y < 2])
    if not count:
        np.testing.assert_array_equal(two.train_x, whole.train_x[whole.train_y < 2])


@pytest.mark.parametrize("few_first", [True, False])
def test_prepared_set_with_max_train_examples(few_first, prepared):
    counts = (20, 0) if few_first else (0, 20)
    few, whole = sorted(
        (data.load(DataSettings("mnist", prepared, max_train_examples=count)) for count in counts),
        key=lambda dataset: len(dataset.train_x),
    )
    labels = dict(zip(rows(whole.train_x), whole.train_y, strict=True))
    assert [labels[row] for row in rows(few.train_x)] == few.train_y.tolist()
    assert (len(few.train_x), len(few.test_x)) == (20, 7)


def test_images_are_decoded_once(prepared, decoded):
    settings = DataSettings("cifar10", prepared)
    first = data.load(settings)
    assert sorted(decoded) == [("test", row) for row in range(7)] + [("train", row) for row in range(1003)]
    decoded.clear()
    assert_same_data(data.load(settings), first)
    assert not decoded


def test_only_kept_images_are_decoded(prepared, decoded):
    data.load(DataSettings("mnist", prepared, max_train_examples=20))
    assert len([split for split, _ in decoded if split == "train"]) == 20


def test_images_of_another_folder_are_decoded_again(prepared, tmp_path, decoded):
    data.load(DataSettings("mnist", prepared))
    shutil.copytree(f"{prepared}/mnist", tmp_path / "other" / "mnist")
    decoded.clear()
    data.load(DataSettings("mnist", str(tmp_path / "other")))
    assert len(decoded) == 1010


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other arrays", "fewer"])
def test_damaged_cache_is_made_again(damage, prepared, cache, decoded):
    settings = DataSettings("fashion_mnist", prepared)
    whole = data.load(settings)
    files = list((cache / "cake_jax" / "data").glob("*.npz"))
    assert len(files) == 2
    for path in files:
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
    assert_same_data(data.load(settings), whole)
    assert len(decoded) == 50
    decoded.clear()
    assert_same_data(data.load(settings), whole)
    assert not decoded


def test_unwritable_cache_does_no_harm(prepared, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(data.load(DataSettings("mnist", prepared)).train_x) == 1003


def test_default_folder_is_that_of_tfds(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", prepared)
    assert_same_data(data.load(DataSettings("mnist")), data.load(DataSettings("mnist", prepared)))


@pytest.mark.parametrize("function", [data.load, data.check])
@pytest.mark.parametrize("name", [*IMAGE_SETS, *MADE_OF])
def test_missing_set_is_refused_without_a_download(function, name, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: pytest.fail("download"))
    with pytest.raises(CakeError) as caught:
        function(DataSettings(name, str(tmp_path)))
    for part in ("dataset.data_dir", f"'{MADE_OF.get(name, name)}'", str(tmp_path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing", "no json", "tfrecord"])
def test_damaged_set_is_refused(damage, prepared, tmp_path):
    shutil.copytree(f"{prepared}/mnist", tmp_path / "mnist")
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
    assert_refused(DataSettings("mnist", str(tmp_path)), "dataset.data_dir", "mnist", str(tmp_path))
