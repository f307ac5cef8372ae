"""Folders of images that somebody made to do harm."""

import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
from cake_errors import message_of
from data_files import make_folder, random_pixels, save_image
from limits import little_memory, little_time
from PIL import EpsImagePlugin, Image

from cake_jax import data
from cake_jax.data import DataSettings


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A folder of images of 8 x 10 pixels in two classes."""
    make_folder(tmp_path / "data", classes=("ant", "bee"), counts=(3, 2))
    return tmp_path / "data"


def load(folder, **options):
    return data.load(DataSettings("folder", str(folder), **options))


def png_of_zeros(path, width, height):
    """A grey PNG file of black pixels, whose size is a thousandth of theirs."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, row = zlib.compressobj(9), bytes(width + 1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize("options", [{}, {"image_size": 8}])
@pytest.mark.parametrize("sides", [(50_000, 50_000), (13_000, 10_000)])
def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(sides, options, folder):
    path = folder / "train" / "ant" / "00.png"
    png_of_zeros(path, sides[0], 4)
    content = bytearray(path.read_bytes())
    content[20:24] = struct.pack(">I", sides[1])
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with warnings.catch_warnings(), little_memory(2**31):
        warnings.simplefilter("ignore")  # Pillow only warns of some
        message = message_of(load, folder, **options)
    if sides[0] == 50_000:
        assert message.startswith(f"{path}: not a readable image (Image size (2500000000 pixels) exceeds limit")
    else:
        assert message == f"{path}: 13000 x 10000 pixels, more than 89,478,485; make it smaller"


def test_many_images_that_are_far_larger_than_their_files_are_refused(folder):
    png_of_zeros(folder / "train" / "ant" / "00.png", 4000, 4000)
    for path in [*folder.glob("train/ant/0[12].png"), *folder.glob("train/bee/*.png")]:
        path.unlink()
    for number in range(80):
        path = folder / "train" / "bee" / f"{number:02d}.png"
        path.symlink_to("../ant/00.png")
    with little_memory(2**31):
        message = message_of(load, folder)
    assert message == f"{folder / 'train'}: unpacks to 1.3 GB, more than 100 times its size; set dataset.image_size"


def test_images_of_another_size_are_not_decoded(folder, monkeypatch):
    path = folder / "train" / "ant" / "02.png"
    png_of_zeros(path, 9000, 9000)
    decoded = []
    load_image = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image.size) or load_image(image))
    message = message_of(load, folder)
    assert message == f"{path}: 9000 x 9000 pixels, but {path.with_name('00.png')} has 10 x 8; set dataset.image_size"
    assert (9000, 9000) not in decoded


def test_a_truncated_image_and_one_of_another_kind_are_refused(folder):
    path = folder / "train" / "ant" / "01.png"
    whole = path.read_bytes()
    for content in (whole[:-30], b"", b"<svg/>", b"\x00" * 100, whole[:8] + b"\xff" * 100):
        path.write_bytes(content)
        message = message_of(load, folder)
        assert message.startswith(f"{path}: not a readable image (")
        assert message.endswith("; delete or replace it")


def test_only_the_first_picture_of_an_animation_is_decoded(folder):
    path = folder / "train" / "ant" / "01.png"
    pixels = [random_pixels(seed, (8, 10, 3)) for seed in range(50)]
    pictures = [Image.fromarray(one) for one in pixels]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    found = load(folder)
    np.testing.assert_allclose(found.spec.denormalize(found.train_x[1]) * 255, pixels[0], atol=0.01)


@pytest.mark.parametrize("name", ["01.png", "01.eps"])
def test_postscript_which_is_a_program_is_not_run(name, folder, monkeypatch):
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: ran.append(1) or Image.new("RGB", (10, 8)).im)
    path = folder / "train" / "ant" / name
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 8\n%%EndComments\n(%pipe%id) (r) file\n%%EOF\n")
    with Image.open(path) as image:
        image.load()
    assert ran, "Pillow alone runs it"
    ran.clear()
    if name == "01.png":
        assert message_of(load, folder).startswith(f"{path}: not a readable image (")
    else:
        with pytest.warns(match="1 files in .* are skipped"):
            load(folder)
    assert not ran


@pytest.mark.parametrize("kind", ["file", "class", "split"])
def test_a_link_out_of_the_folder_is_refused(kind, folder, tmp_path):
    outside = tmp_path / "private"
    make_folder(outside, classes=("ant", "bee"), counts=(3, 2))
    link = folder / {"file": "train/bee/00.png", "class": "train/bee", "split": "train"}[kind]
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(outside / link.relative_to(folder))
    message = message_of(load, folder)
    assert message == (f"{link}: leads out of {folder}; if you trust it, put the files themselves there (cp -rL)")


def test_links_within_the_folder_and_to_the_whole_folder_are_read(folder, tmp_path):
    first = load(folder)
    (folder / "train" / "bee" / "00.png").rename(folder / "bee.png")
    (folder / "train" / "bee" / "00.png").symlink_to(folder / "bee.png")
    (tmp_path / "link").symlink_to(folder)
    np.testing.assert_array_equal(load(tmp_path / "link").train_x, first.train_x)


def test_links_to_themselves_pipes_and_devices_do_not_hang(folder):
    (folder / "train" / "ant" / "loop").symlink_to(folder / "train")
    (folder / "train" / "ant" / "self.png").symlink_to("self.png")
    (folder / "train" / "ant" / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "train" / "ant" / "fifo.png")
    with little_time():
        assert len(load(folder).train_x) == 6


@pytest.mark.parametrize("target", ["../../../private.png", "{root}/private.png", "a/../../../../private.png"])
def test_annotations_that_lead_out_of_the_folder_are_refused(target, folder, tmp_path):
    private = tmp_path / "private.png"
    save_image(private, random_pixels(0, (8, 10, 3)))
    shutil.rmtree(folder / "test")
    (folder / "val" / "images" / "a").mkdir(parents=True)
    name = target.format(root=tmp_path)
    save_image(folder / "val" / "images" / "0.png", random_pixels(0, (8, 10, 3)))
    (folder / "val" / "val_annotations.txt").write_text(f"{name}\tant\n0.png\tbee\n")
    assert (folder / "val" / "images" / name).is_file()
    message = message_of(load, folder)
    val = folder / "val"
    assert message == f"{val / 'val_annotations.txt'}: line 1 must name a file in {val / 'images'}"


def test_names_with_line_breaks_control_codes_and_odd_bytes_stay_in_one_line(folder):
    for split, count in (("train", 2), ("test", 1)):
        for number in range(count):
            save_image(folder / split / "a\n\x1b[31mb<script>" / f"{number}.png", random_pixels(number, (8, 10, 3)))
    found = load(folder)
    assert found.spec.class_names == ("a??[31mb<script>", "ant", "bee")
    bad = os.fsdecode(os.fsencode(folder / "train" / "ant") + b"/\xff\n\x1b.png")
    with open(bad, "wb") as file:
        file.write(b"no image")
    message = message_of(load, folder)
    assert message.startswith(f"{folder / 'train' / 'ant'}/???.png: not a readable image (")
    message.encode()  # a lone surrogate cannot be printed


def test_classes_that_look_the_same_are_refused(folder):
    for split, count in (("train", 2), ("test", 1)):
        for name in (b"\xfe", b"\xff"):
            for number in range(count):
                path = folder / split / os.fsdecode(name) / f"{number}.png"
                save_image(path, random_pixels(number, (8, 10, 3)))
    message = message_of(load, folder)
    train = folder / "train"
    assert message == f"dataset.data_dir: two classes in {train} have the name '?'; rename one of their folders"


@pytest.mark.parametrize("kind", ["FIFO", "device", "bytes"])
def test_odd_files_of_class_names_are_refused(kind, folder, tmp_path):
    path = tmp_path / "names.txt"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"ant\n\xff\n")
    with little_time(), little_memory():
        message = message_of(load, folder, class_names=str(path))
    assert message.startswith(f"dataset.class_names: {path}")
