"""Folders of images and `.npz` files: layouts, what is measured, what is refused, and a run whose data have gone."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from cake_jax import checkpoint, data, dry_run, experiment
from cake_jax.config import default
from cake_jax.types import CakeError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """Files that were decoded, in any order."""
    files, real = [], data.folder._decode
    monkeypatch.setattr(data.folder, "_decode", lambda file, *args: files.append(file) or real(file, *args))
    return files


def pixels_of(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)


def make_folder(root, *, shape=(8, 10, 3), classes=("ant", "bee", "cat"), counts=(6, 2), test="test"):
    """An ImageFolder of random images; returns them by split and class, in the order of their names."""
    images = {}
    for split, count in zip(("train", test), counts, strict=True):
        for label, name in enumerate(classes):
            images[split, name] = [pixels_of([len(split), label, i], shape) for i in range(count)]
            for number, pixels in enumerate(images[split, name]):
                save(root / split / name / f"{number:02d}.png", pixels)
    return images


def stacked(images, split):
    return np.concatenate([np.stack(group) for (of, _), group in images.items() if of == split])


def refused(name, *parts, **options):
    """Both `check` or `spec_of`, and `load`, refuse within seconds in one line that has all the parts."""
    started = time.perf_counter()
    with pytest.raises(CakeError) as caught:
        data.load(name, **options)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_read_and_measured(test, channels, tmp_path):
    images = make_folder(tmp_path / "own", shape=(8, 10, channels), test=test)
    found = data.load("folder", data_dir=str(tmp_path / "own"))
    train = stacked(images, "train") / 255
    assert found.spec == data.spec_of("folder", data_dir=str(tmp_path / "own"))
    assert found.spec.shape == (8, 10, channels)
    assert (found.spec.num_classes, found.spec.class_names) == (3, ("ant", "bee", "cat"))
    assert (found.spec.low, found.spec.high) == (0.0, 1.0)
    np.testing.assert_allclose(found.spec.mean, train.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(found.spec.std, train.std(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(found.spec.denormalize(found.train_x), train, atol=1e-6)
    np.testing.assert_allclose(found.spec.denormalize(found.test_x), stacked(images, test) / 255, atol=1e-6)
    assert found.train_y.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert found.test_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert [part.dtype for part in found[1:]] == [np.float32, np.int32, np.float32, np.int32]
    assert data.train_size("folder", data_dir=str(tmp_path / "own")) == 18
    data.check("folder", data_dir=str(tmp_path / "own"))


def test_images_are_decoded_once_until_a_file_changes(tmp_path, decoded):
    make_folder(tmp_path)
    first = data.load("folder", data_dir=str(tmp_path))
    assert len(decoded) == len(set(decoded)) == 24
    decoded.clear()
    np.testing.assert_array_equal(data.load("folder", data_dir=str(tmp_path)).train_x, first.train_x)
    assert not decoded
    save(tmp_path / "train" / "bee" / "02.png", np.full((8, 10, 3), 7, np.uint8))
    changed = data.load("folder", data_dir=str(tmp_path))
    np.testing.assert_allclose(changed.spec.denormalize(changed.train_x[8]), 7 / 255, atol=1e-6)
    assert changed.spec.mean != first.spec.mean


def test_a_damaged_note_of_the_specification_is_measured_again(tmp_path, cache):
    make_folder(tmp_path / "own")
    spec = data.spec_of("folder", data_dir=str(tmp_path / "own"))
    (note,) = (cache / "cake_jax" / "data").glob("*.json")
    for damage in ("", "[]", "{"):
        note.write_text(damage)
        assert data.spec_of("folder", data_dir=str(tmp_path / "own")) == spec


def test_only_the_images_that_are_kept_are_decoded(tmp_path, decoded, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.setattr(data.folder, "_MEASURED", 3)
    spec = data.spec_of("folder", data_dir=str(tmp_path))
    assert len(decoded) == 3
    few = data.load("folder", data_dir=str(tmp_path), max_train_examples=5)
    assert len(decoded) == 3 + 5 + 6
    assert len(few.train_x) == 5
    assert few.spec == spec


def test_image_size_scales_and_cuts(tmp_path):
    make_folder(tmp_path)
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 9:31] = 200  # the middle square, and as far as its edge is smoothed
    save(tmp_path / "test" / "ant" / "00.png", wide)
    found = data.load("folder", data_dir=str(tmp_path), image_size=6)
    assert found.spec.shape == (6, 6, 3)
    np.testing.assert_allclose(found.spec.denormalize(found.test_x[0]) * 255, 200, atol=1e-3)


def test_other_files_and_kinds_of_pixels(tmp_path):
    """Hidden and other files are passed over; palettes and transparency become colour; JPEG is read."""
    make_folder(tmp_path, counts=(2, 2))
    (tmp_path / "train" / "ant" / "._00.png").write_text("made by a file manager")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("x")
    (tmp_path / "train" / ".hidden").mkdir()
    flat = np.full((8, 10, 4), 90, np.uint8)
    Image.fromarray(flat).save(tmp_path / "test" / "ant" / "00.png")
    Image.fromarray(flat[..., :3]).quantize().save(tmp_path / "test" / "bee" / "00.png")
    Image.fromarray(flat[..., :3]).save(tmp_path / "test" / "cat" / "00.JPEG")
    found = data.load("folder", data_dir=str(tmp_path))
    assert len(found.train_x) == 6
    pixels = found.spec.denormalize(found.test_x) * 255
    for place in (0, 2, 4):
        np.testing.assert_allclose(pixels[place], 90, atol=2)


def damage_folder(root, damage):
    one = root / "train" / "bee" / "03.png"
    if damage == "no folder":
        shutil.rmtree(root / "train")
        return ["dataset.data_dir", str(root / "train")]
    if damage == "no test":
        shutil.rmtree(root / "test")
        return ["dataset.data_dir", str(root / "test"), str(root / "val")]
    if damage == "no classes":
        for name in ("ant", "bee", "cat"):
            shutil.rmtree(root / "train" / name)
        return ["no images", str(root / "train")]
    if damage == "one class":
        for split in ("train", "test"):
            for name in ("ant", "bee"):
                shutil.rmtree(root / split / name)
        return ["1 classes", "two or more"]
    if damage == "no images":
        for path in (root / "train" / "bee").iterdir():
            path.unlink()
        return ["no images", str(root / "train" / "bee")]
    if damage == "classes differ":
        (root / "test" / "bee").rename(root / "test" / "dog")
        return ["class 'bee'", str(root / "test")]
    if damage == "corrupt":
        one.write_bytes(one.read_bytes()[:90])
        return [str(one), "no readable image"]
    if damage == "no image":
        one.write_text("hello")
        return [str(one), "no readable image"]
    if damage == "grey":
        save(one, pixels_of(1, (8, 10, 1)))
        return [str(one), "grey", "coloured"]
    if damage == "16 bit":
        Image.fromarray(np.zeros((8, 10), np.uint16)).save(one)
        return [str(one), "8-bit"]
    if damage == "test size":
        for path in (root / "test").rglob("*.png"):
            save(path, pixels_of(1, (8, 9, 3)))
        return ["(8, 9, 3)", "(8, 10, 3)"]
    if damage == "constant":
        for path in (root / "train").rglob("*.png"):
            save(path, np.full((8, 10, 3), 9, np.uint8))
        return ["one value"]
    save(one, pixels_of(1, (8, 11, 3)))
    return [str(one), "11 x 8", "10 x 8", "dataset.image_size"]


@pytest.mark.parametrize(
    "damage",
    [
        "no folder",
        "no test",
        "no classes",
        "one class",
        "no images",
        "classes differ",
        "corrupt",
        "no image",
        "grey",
        "16 bit",
        "test size",
        "constant",
        "size",
    ],
)
def test_a_folder_that_cannot_be_used(damage, tmp_path):
    make_folder(tmp_path)
    refused("folder", *damage_folder(tmp_path, damage), data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["folder", "tiny_imagenet", "imagenet12", "npz"])
def test_data_that_are_not_there(name, tmp_path):
    for folder in ("", str(tmp_path / "nowhere")):
        refused(name, "dataset.data_dir", data_dir=folder)
        with pytest.raises(CakeError, match=r"dataset\.data_dir"):
            data.check(name, data_dir=folder)


def test_twelve_classes_of_imagenet(tmp_path):
    """Images of any size, grey ones too, become 64 x 64 in colour."""
    names = tuple(f"n{number:08d}" for number in range(12))
    make_folder(tmp_path / "imagenet12", shape=(70, 90, 3), classes=names, counts=(2, 1), test="val")
    save(tmp_path / "imagenet12" / "train" / names[0] / "00.png", np.full((80, 65, 1), 50, np.uint8))
    found = data.load("imagenet12", data_dir=str(tmp_path))
    assert found.spec == data.spec_of("imagenet12")
    assert (found.train_x.shape, found.test_x.shape) == ((24, 64, 64, 3), (12, 64, 64, 3))
    np.testing.assert_allclose(found.spec.denormalize(found.train_x[0]) * 255, 50, atol=1e-3)
    assert found.test_y.tolist() == list(range(12))
    shutil.rmtree(tmp_path / "imagenet12" / "train" / names[1])
    shutil.rmtree(tmp_path / "imagenet12" / "val" / names[1])
    refused("imagenet12", "11 classes, not 12", data_dir=str(tmp_path))


def make_tiny_imagenet(root):
    """The layout as it comes unpacked, with an image for each class and split; the val files in reverse order."""
    names = [f"n{number:08d}" for number in range(200)]
    lines = []
    for label, name in enumerate(names):
        save(root / "train" / name / "images" / f"{name}_0.JPEG", np.full((64, 64, 3), label, np.uint8))
        save(root / "val" / "images" / f"val_{199 - label:03d}.JPEG", np.full((64, 64, 3), 255 - label, np.uint8))
        lines.append(f"val_{199 - label:03d}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save(root / "test" / "images" / "test_0.JPEG", np.zeros((64, 64, 3), np.uint8))
    return names


def test_tiny_imagenet_as_it_comes_unpacked(tmp_path):
    names = make_tiny_imagenet(tmp_path / "tiny_imagenet")
    found = data.load("tiny_imagenet", data_dir=str(tmp_path))
    assert found.spec == data.spec_of("tiny_imagenet")
    assert (found.train_x.shape, found.test_x.shape) == ((200, 64, 64, 3), (200, 64, 64, 3))
    for x, y, sign in ((found.train_x, found.train_y, 1), (found.test_x, found.test_y, -1)):
        level = found.spec.denormalize(x).mean(axis=(1, 2, 3)) * 255
        assert np.abs(level - (y if sign > 0 else 255 - y)).max() < 3
        assert sorted(y) == list(range(200))
    annotations = tmp_path / "tiny_imagenet" / "val" / "val_annotations.txt"
    for broken in ("gone.JPEG\t" + names[0], "val_000.JPEG\tn999", "val_000.JPEG", ""):
        annotations.write_text(broken)
        refused("tiny_imagenet", str(annotations), data_dir=str(tmp_path))


def arrays(**changes):
    """Keras's names, as small as can be; a value of None leaves an array out."""
    rng = np.random.default_rng(0)
    made = {
        "x_train": rng.integers(0, 200, (30, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(30, dtype=np.uint8)[:, None] % 3,  # as Keras has CIFAR-10's
        "x_test": rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


@pytest.mark.parametrize("save_arrays", [np.savez, np.savez_compressed])
def test_npz(save_arrays, tmp_path):
    made, path = arrays(), tmp_path / "own.npz"
    save_arrays(path, **made)
    found = data.load("npz", data_dir=str(path))
    assert found.spec == data.spec_of("npz", data_dir=str(path))
    assert (found.spec.shape, found.spec.num_classes) == ((6, 5, 3), 3)
    assert (found.spec.low, found.spec.high) == (0, 1)
    np.testing.assert_allclose(found.spec.mean, (made["x_train"] / 255).mean(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(found.spec.std, (made["x_train"] / 255).std(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(found.spec.denormalize(found.test_x) * 255, made["x_test"], atol=1e-3)
    assert found.train_y.tolist() == [0, 1, 2] * 10
    assert [part.dtype for part in found[1:]] == [np.float32, np.int32, np.float32, np.int32]
    assert len(data.load("npz", data_dir=str(path), max_train_examples=7).train_x) == 7
    assert data.train_size("npz", data_dir=str(path)) == 30


def test_npz_of_grey_images_and_of_vectors(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(x_train=np.ones((30, 6, 5), np.uint8), x_test=np.ones((9, 6, 5), np.uint8)))
    assert data.load("npz", data_dir=str(path)).train_x.shape == (30, 6, 5, 1)
    vectors = np.random.default_rng(0).normal([1, 5], [1, 3], (30, 2))
    np.savez(path, **arrays(x_train=vectors, x_test=vectors[:9]))
    found = data.load("npz", data_dir=str(path))
    assert (found.spec.shape, found.spec.low, found.spec.high) == ((2,), None, None)
    np.testing.assert_allclose(found.train_x.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.train_x.std(axis=0), 1, atol=1e-3)
    wide = np.random.default_rng(0).normal(size=(30, 6, 5, 1)).astype(np.float32)
    np.savez(path, **arrays(x_train=wide, x_test=wide[:9]))
    assert data.spec_of("npz", data_dir=str(path)).low is None


def test_the_header_of_an_npz_is_enough_for_its_size(tmp_path, monkeypatch):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("read"))
    data.check("npz", data_dir=str(path))
    assert data.train_size("npz", 20, data_dir=str(path)) == 20


class Bomb:
    """What unpickling would run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no array y_test"),
        ({"x_train": np.array([Bomb()] * 30)}, "Python objects"),
        ({"y_train": np.array([Bomb()] * 30)}, "Python objects"),
        ({"x_train": np.zeros((30, 6, 5, 3), np.int64)}, "type int64"),
        ({"y_train": np.zeros(30)}, "type float64"),
        ({"y_train": np.zeros((30, 3), int)}, "shape (30, 3)"),
        ({"x_train": np.zeros((30,), np.uint8)}, "shape (30,)"),
        ({"y_train": np.zeros(29, int)}, "30 x_train but 29 y_train"),
        ({"x_test": np.zeros((9, 6, 4, 3), np.uint8)}, "x_test"),
        ({"x_test": np.zeros((9, 6, 5, 3))}, "x_test"),
        ({"y_train": np.arange(30) % 3 - 1}, "holds -1"),
        ({"y_train": np.zeros(30, int)}, "1 classes of 1"),
        ({"y_train": np.arange(30) % 2 * 10**9}, "2 classes of 1000000001"),
        ({"y_test": np.full(9, 3)}, "label 3"),
        ({"x_train": np.full((30, 6, 5, 3), np.nan), "x_test": np.zeros((9, 6, 5, 3))}, "NaN"),
    ],
)
def test_an_npz_that_cannot_be_used(changes, message, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    refused("npz", message, "own.npz" if "label" not in message else "npz", data_dir=str(tmp_path / "own.npz"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_npz(damage, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:900]
    elif damage == "flipped":
        content[900] ^= 0xFF
    else:
        content = b"hello"
    path.write_bytes(content)
    refused("npz", str(path), data_dir=str(path))


def test_a_known_specification_normalises_and_must_fit(tmp_path):
    make_folder(tmp_path)
    spec = data.spec_of("imagenet12")
    with pytest.raises(CakeError, match=r"inputs of shape \(8, 10, 3\), not \(64, 64, 3\)"):
        data.load("folder", data_dir=str(tmp_path), spec=spec)


@pytest.fixture
def config():
    config = default()
    config.teacher.epochs = config.student.epochs = 2
    config.teacher.batch_size = config.student.batch_size = 10
    config.teacher.augment = ("flip", "cutout")
    config.synthesis.num_groups = 3
    config.synthesis.num_batches = 2
    config.synthesis.batch_size = 30
    config.synthesis.num_steps = 3
    return config


def test_a_dry_run_counts_own_data(config, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays())
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "own.npz")
    config.run.synthesis = config.run.student = config.run.evaluation = False
    assert "2 epochs of 30 examples" in dry_run.describe(config)


def test_a_run_on_own_data_goes_on_after_they_have_gone(config, tmp_path):
    own = tmp_path / "own"
    config.dataset.name, config.dataset.data_dir = "folder", str(own)
    make_folder(own)
    spec = data.spec_of("folder", data_dir=str(own))
    whole = experiment.run(config, tmp_path / "whole", config_name="own")
    assert checkpoint.load_model(tmp_path / "whole" / "teacher").spec == spec
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["teacher"]["augment"] == ["flip", "cutout"]

    # A second run makes its teacher, then loses the data and everything that was remembered of them.
    config.run.evaluation = False
    experiment.run(config, tmp_path / "second", config_name="own")
    for path in ("results.json", "student/model.json"):
        (tmp_path / "second" / path).unlink()
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "cache")
    second = experiment.run(config, tmp_path / "second", config_name="own")
    assert second["samples"] == whole["samples"]
    assert checkpoint.load_model(tmp_path / "second" / "student").spec == spec

    # A third takes the teacher of the first.
    config.teacher.from_run = str(tmp_path / "whole")
    experiment.run(config, tmp_path / "third", config_name="own")
    config.run.evaluation = True
    with pytest.raises(CakeError, match=r"dataset\.data_dir"):
        experiment.run(config, tmp_path / "fourth", config_name="own")
