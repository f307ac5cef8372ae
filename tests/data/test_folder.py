"""Image sets in folders: layouts, measured specifications, the cache, and what is refused."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
from data_files import assert_refused, make_folder, random_pixels, save_image
from PIL import Image

from cake_jax import data
from cake_jax.data import DataSettings
from cake_jax.types import CakeError, CakeWarning


@pytest.fixture
def decoded(monkeypatch):
    """The files that are opened as images, in any order."""
    files, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *args: files.append(file) or real(file, *args))
    return files


def stacked(images, split):
    return np.concatenate([np.stack(group) for (name, _), group in images.items() if name == split])


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("channels", [1, 3])
def test_folder_is_read_and_measured(test, channels, tmp_path):
    images = make_folder(tmp_path, shape=(8, 10, channels), test=test)
    settings = DataSettings("folder", str(tmp_path))
    found, train = data.load(settings), stacked(images, "train") / 255
    assert found.spec == data.spec_of(settings)
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


def test_check_and_train_size_open_no_image(tmp_path, decoded):
    make_folder(tmp_path)
    data.check(DataSettings("folder", str(tmp_path)))
    assert data.train_size(DataSettings("folder", str(tmp_path))) == 18
    assert data.train_size(DataSettings("folder", str(tmp_path), max_train_examples=5)) == 5
    assert not decoded


def test_images_are_decoded_once_until_a_file_changes(tmp_path, decoded):
    settings = DataSettings("folder", str(tmp_path))
    make_folder(tmp_path)
    first = data.load(settings)
    assert len(decoded) == len(set(decoded)) == 24
    decoded.clear()
    np.testing.assert_array_equal(data.load(settings).train_x, first.train_x)
    assert not decoded
    save_image(tmp_path / "train" / "bee" / "02.png", np.full((8, 10, 3), 7, np.uint8))
    changed = data.load(settings)
    np.testing.assert_allclose(changed.spec.denormalize(changed.train_x[8]), 7 / 255, atol=1e-6)
    assert changed.spec.mean != first.spec.mean


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_damaged_cached_specification_is_measured_again(tmp_path, cache, damage):
    settings = DataSettings("folder", str(tmp_path))
    make_folder(tmp_path)
    spec = data.spec_of(settings)
    (note,) = (cache / "cake_jax" / "data").glob("*.json")
    whole = note.read_text()
    note.write_text(damage)
    assert data.spec_of(settings) == spec
    assert note.read_text() == whole


def test_only_kept_images_are_decoded(tmp_path, decoded, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.setattr(data.image_folder, "MAX_MEASURED", 3)
    spec = data.spec_of(DataSettings("folder", str(tmp_path)))
    assert len(decoded) == 3
    few = data.load(DataSettings("folder", str(tmp_path), max_train_examples=5))
    assert len(decoded) == 3 + 5 + 6
    assert len(few.train_x) == 5
    assert few.spec == spec


def test_image_size_scales_and_cuts(tmp_path):
    make_folder(tmp_path)
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 9:31] = 200  # the middle square, and a margin that scaling mixes into it
    save_image(tmp_path / "test" / "ant" / "00.png", wide)
    found = data.load(DataSettings("folder", str(tmp_path), image_size=6))
    assert found.spec.shape == (6, 6, 3)
    np.testing.assert_allclose(found.spec.denormalize(found.test_x[0]) * 255, 200, atol=1e-3)


def test_hidden_files_are_ignored(tmp_path):
    make_folder(tmp_path, counts=(2, 2))
    (tmp_path / "train" / "ant" / "._00.png").write_text("made by a file manager")
    (tmp_path / "train" / ".hidden").mkdir()
    assert len(data.load(DataSettings("folder", str(tmp_path))).train_x) == 6


def test_other_files_are_skipped_and_counted(tmp_path):
    make_folder(tmp_path, counts=(2, 2))
    for name in ("ant", "bee"):
        (tmp_path / "train" / name / "notes.txt").write_text("x")
    with pytest.warns(CakeWarning) as warned:
        assert len(data.load(DataSettings("folder", str(tmp_path))).train_x) == 6
    message = f"dataset.data_dir: 2 files in {tmp_path / 'train'} are skipped, because they are no images that Pillow"
    assert {str(one.message) for one in warned} == {f"{message} reads: {tmp_path / 'train' / 'ant' / 'notes.txt'}"}


def test_every_format_of_pillow_is_read(tmp_path):
    images = make_folder(tmp_path, counts=(4, 1))
    for number, suffix in enumerate(("gif", "TIFF", "ppm", "tga")):
        path = tmp_path / "train" / "ant" / f"{number:02d}.png"
        with Image.open(path) as image:
            image.save(path.with_suffix(f".{suffix}"))
        path.unlink()
    found = data.load(DataSettings("folder", str(tmp_path)))
    pixels = found.spec.denormalize(found.train_x) * 255
    # GIF has 256 colours at most, which these 80 pixels do not need.
    np.testing.assert_allclose(pixels[:4], np.stack(images["train", "ant"]), atol=0.01)


def test_classes_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path):
    classes = tuple(map(str, range(12)))
    images = make_folder(tmp_path, classes=classes, counts=(2, 1))
    found = data.load(DataSettings("folder", str(tmp_path)))
    assert found.spec.class_names == classes
    assert found.train_y.tolist() == [label for label in range(12) for _ in range(2)]
    pixels = found.spec.denormalize(found.test_x) * 255
    for label, name in enumerate(classes):
        np.testing.assert_allclose(pixels[label], images["test", name][0], atol=0.01)
    make_folder(tmp_path / "mixed", classes=("10", "9", "a"), counts=(1, 1))
    assert data.spec_of(DataSettings("folder", str(tmp_path / "mixed"))).class_names == ("10", "9", "a")


def test_the_labels_follow_the_class_names_of_a_teacher(tmp_path):
    """A teacher that was trained with another order of the classes keeps its order."""
    images = make_folder(tmp_path, counts=(2, 1))
    settings = DataSettings("folder", str(tmp_path))
    spec = dataclasses.replace(data.spec_of(settings), class_names=("cat", "ant", "bee"))
    found = data.load(settings, spec)
    assert (found.train_y.tolist(), found.test_y.tolist()) == ([1, 1, 2, 2, 0, 0], [1, 2, 0])
    np.testing.assert_allclose(found.spec.denormalize(found.test_x)[0] * 255, images["test", "ant"][0], atol=0.01)
    with pytest.raises(CakeError, match="only one of the data and the teacher has the class 'cat'"):
        data.load(settings, dataclasses.replace(spec, class_names=("dog", "ant", "bee")))


def test_a_file_gives_the_order_of_the_classes(tmp_path):
    images = make_folder(tmp_path, counts=(2, 1))
    names = tmp_path / "names.txt"
    names.write_text("cat\nant\n\nbee\n")
    settings = DataSettings("folder", str(tmp_path), class_names=str(names))
    found = data.load(settings)
    assert found.spec.class_names == ("cat", "ant", "bee")
    assert found.test_y.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.spec.denormalize(found.test_x)[0] * 255, images["test", "cat"][0], atol=0.01)
    names.write_text("cat\nant\n")
    assert_refused(settings, f"dataset.class_names: only one of {names} and {tmp_path / 'train'} has the class 'bee'")
    assert_refused(DataSettings("folder", str(tmp_path), class_names="nowhere.txt"), "dataset.class_names: nowhere.txt")


def test_names_that_are_no_utf8_are_read(tmp_path):
    images = make_folder(tmp_path, counts=(2, 1))
    for split in ("train", "test"):
        os.rename(tmp_path / split / "ant", os.path.join(os.fsencode(tmp_path / split), b"\xe9t\xe9"))
        folder = os.path.join(os.fsencode(tmp_path / split), b"\xe9t\xe9")
        os.rename(os.path.join(folder, b"00.png"), os.path.join(folder, b"\xfc.png"))
    found = data.load(DataSettings("folder", str(tmp_path)))
    assert found.spec.class_names == ("bee", "cat", "?t?")
    np.testing.assert_allclose(found.spec.denormalize(found.test_x)[2] * 255, images["test", "ant"][0], atol=0.01)
    np.testing.assert_array_equal(data.load(DataSettings("folder", str(tmp_path))).train_x, found.train_x)


def test_palette_transparency_and_jpeg_become_colour(tmp_path):
    make_folder(tmp_path, counts=(2, 2))
    flat = np.full((8, 10, 4), 90, np.uint8)
    Image.fromarray(flat).save(tmp_path / "test" / "ant" / "00.png")
    Image.fromarray(flat[..., :3]).quantize().save(tmp_path / "test" / "bee" / "00.png")
    Image.fromarray(flat[..., :3]).save(tmp_path / "test" / "cat" / "00.JPEG")
    found = data.load(DataSettings("folder", str(tmp_path)))
    pixels = found.spec.denormalize(found.test_x) * 255
    for place in (0, 2, 4):
        np.testing.assert_allclose(pixels[place], 90, atol=2)


def without_both(root):
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    return ["dataset.data_dir", str(root / "train")]


def without_test(root):
    shutil.rmtree(root / "test")
    return ["dataset.data_dir", str(root / "test"), str(root / "val")]


def without_classes(root):
    for name in ("ant", "bee", "cat"):
        shutil.rmtree(root / "train" / name)
    return ["no images", str(root / "train")]


def with_one_class(root):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(root / split / name)
    return ["1 classes", "two or more"]


def with_an_empty_class(root):
    for path in (root / "train" / "bee").iterdir():
        path.unlink()
    return ["no images", str(root / "train" / "bee")]


def with_other_test_classes(root):
    (root / "test" / "bee").rename(root / "test" / "dog")
    return ["class 'bee'", str(root / "test")]


def with_other_test_shape(root):
    for path in (root / "test").rglob("*.png"):
        save_image(path, random_pixels(1, (8, 9, 3)))
    return ["(8, 9, 3)", "(8, 10, 3)"]


def with_constant_pixels(root):
    for path in (root / "train").rglob("*.png"):
        save_image(path, np.full((8, 10, 3), 9, np.uint8))
    return ["one constant value"]


def with_a_cut_image(root):
    path = root / "train" / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:90])
    return [str(path), "not a readable image"]


def with_text(root):
    path = root / "train" / "bee" / "03.png"
    path.write_text("hello")
    return [str(path), "not a readable image"]


def with_a_grey_image(root):
    path = root / "train" / "bee" / "03.png"
    save_image(path, random_pixels(1, (8, 10, 1)))
    return [str(path), "grey", "coloured"]


def with_16_bits(root):
    path = root / "train" / "bee" / "03.png"
    Image.fromarray(np.zeros((8, 10), np.uint16)).save(path)
    return [str(path), "8-bit"]


def with_another_size(root):
    path = root / "train" / "bee" / "03.png"
    save_image(path, random_pixels(1, (8, 11, 3)))
    return [str(path), "11 x 8", "10 x 8", "dataset.image_size"]


@pytest.mark.parametrize(
    "damage",
    [
        without_both,
        without_test,
        without_classes,
        with_one_class,
        with_an_empty_class,
        with_other_test_classes,
        with_other_test_shape,
        with_constant_pixels,
        with_a_cut_image,
        with_text,
        with_a_grey_image,
        with_16_bits,
        with_another_size,
    ],
)
def test_unusable_folder_is_refused(damage, tmp_path):
    make_folder(tmp_path)
    assert_refused(DataSettings("folder", str(tmp_path)), *damage(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [without_both, without_test, without_classes, with_one_class, with_an_empty_class, with_other_test_classes],
)
def test_check_refuses_an_incomplete_folder(damage, tmp_path):
    make_folder(tmp_path)
    parts = damage(tmp_path)
    with pytest.raises(CakeError) as caught:
        data.check(DataSettings("folder", str(tmp_path)))
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("name", ["folder", "tiny_imagenet", "imagenet12"])
@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_missing_folder_is_refused(name, folder, tmp_path):
    settings = DataSettings(name, folder and str(tmp_path / folder))
    assert_refused(settings, "dataset.data_dir")
    with pytest.raises(CakeError, match=r"dataset\.data_dir"):
        data.check(settings)


def test_imagenet12_becomes_64_pixels_in_colour(tmp_path):
    names = tuple(f"n{number:08d}" for number in range(12))
    make_folder(tmp_path / "imagenet12", shape=(70, 90, 3), classes=names, counts=(2, 1), test="val")
    save_image(tmp_path / "imagenet12" / "train" / names[0] / "00.png", np.full((80, 65, 1), 50, np.uint8))
    found = data.load(DataSettings("imagenet12", str(tmp_path)))
    assert found.spec == data.spec_of(DataSettings("imagenet12"))
    assert (found.train_x.shape, found.test_x.shape) == ((24, 64, 64, 3), (12, 64, 64, 3))
    np.testing.assert_allclose(found.spec.denormalize(found.train_x[0]) * 255, 50, atol=1e-3)
    assert found.test_y.tolist() == list(range(12))


def test_imagenet12_with_another_number_of_classes_is_refused(tmp_path):
    names = tuple(f"n{number:08d}" for number in range(11))
    make_folder(tmp_path / "imagenet12", classes=names, counts=(1, 1), test="val")
    assert_refused(DataSettings("imagenet12", str(tmp_path)), "11 classes, not 12")


def make_tiny_imagenet(root):
    """The unpacked layout with one image for each class and split. The files of `val` are in reverse order."""
    names = [f"n{number:08d}" for number in range(200)]
    lines = []
    for label, name in enumerate(names):
        save_image(root / "train" / name / "images" / f"{name}_0.JPEG", np.full((64, 64, 3), label, np.uint8))
        file = f"val_{199 - label:03d}.JPEG"
        save_image(root / "val" / "images" / file, np.full((64, 64, 3), 255 - label, np.uint8))
        lines.append(f"{file}\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save_image(root / "test" / "images" / "test_0.JPEG", np.zeros((64, 64, 3), np.uint8))
    return names


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path):
    names = make_tiny_imagenet(tmp_path / "tiny_imagenet")
    settings = DataSettings("tiny_imagenet", str(tmp_path))
    found = data.load(settings)
    assert found.spec == data.spec_of(DataSettings("tiny_imagenet"))
    assert (found.train_x.shape, found.test_x.shape) == ((200, 64, 64, 3), (200, 64, 64, 3))
    for x, y, level in (
        (found.train_x, found.train_y, found.train_y),
        (found.test_x, found.test_y, 255 - found.test_y),
    ):
        pixels = found.spec.denormalize(x).mean(axis=(1, 2, 3)) * 255
        assert np.abs(pixels - level).max() < 3
        assert sorted(y) == list(range(200))
    annotations = tmp_path / "tiny_imagenet" / "val" / "val_annotations.txt"
    for broken in ("gone.JPEG\t" + names[0], "val_000.JPEG\tn999", "val_000.JPEG", ""):
        annotations.write_text(broken)
        assert_refused(settings, str(annotations))


def test_annotations_without_training_images_need_the_classes(tmp_path):
    names = make_tiny_imagenet(tmp_path)
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / split)
    assert_refused(DataSettings("folder", str(tmp_path)), "dataset.class_names: empty; without train/, it must name a")
    (tmp_path / "names.txt").write_text("\n".join(names))
    with pytest.warns(CakeWarning, match="there are no training inputs"):
        found = data.load(DataSettings("folder", str(tmp_path), class_names=str(tmp_path / "names.txt")))
    assert found.test_y.tolist() == list(range(200))


def test_a_folder_with_test_images_alone_is_read(tmp_path):
    images = make_folder(tmp_path)
    shutil.rmtree(tmp_path / "train")
    settings = DataSettings("folder", str(tmp_path))
    with pytest.warns(CakeWarning, match="there are no training inputs, so mean and standard deviation are those of"):
        found = data.load(settings)
    assert (found.train_x.shape, found.train_y.shape) == ((0, 8, 10, 3), (0,))
    assert found.test_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.spec.class_names == ("ant", "bee", "cat")
    mean = np.mean([images["test", name] for name in found.spec.class_names], axis=(0, 1, 2, 3)) / 255
    np.testing.assert_allclose(found.spec.mean, mean, atol=1e-4)
    with pytest.raises(CakeError, match="has test data alone, so it rests"):
        data.check_training(settings, "it rests")
