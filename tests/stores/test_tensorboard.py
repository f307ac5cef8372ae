"""The TensorBoard writer, read back with TensorBoard."""

import pytest
import writer_files
from PIL import Image

from cake_jax.stores.metrics import WRITERS

pytest.importorskip("tensorboardX")
pytest.importorskip("tensorboard")


def write_rows(folder, rows, stage="teacher"):
    writer = WRITERS["tensorboard"](folder)
    for step, values in rows:
        writer.write(stage, step, values)
    writer.close()


def test_numbers_of_all_stages_are_scalars(tmp_path):
    write_rows(tmp_path, [(1, {"loss": 0.5, "epoch": 1}), (2, {"loss": 0.25, "epoch": 2})])
    write_rows(tmp_path, [(0, {"logit_gap": 2.0})], stage="synthesis")
    scalars, _ = writer_files.tensorboard(tmp_path)
    assert scalars == {
        "teacher/loss": [(1, 0.5), (2, 0.25)],
        "teacher/epoch": [(1, 1.0), (2, 2.0)],
        "synthesis/logit_gap": [(0, 2.0)],
    }


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    write_rows(tmp_path, [(1, {"none": None, "text": "a", "list": [1.0], "dict": {"k": 1.5}, "loss": 0.5})])
    assert writer_files.tensorboard(tmp_path) == ({"teacher/loss": [(1, 0.5)]}, {})


def test_a_resumed_writer_skips_the_steps_of_earlier_files(tmp_path):
    write_rows(tmp_path, [(1, {"loss": 0.5}), (3, {"loss": 0.25})])
    write_rows(tmp_path, [(3, {"loss": 9.0}), (2, {"loss": 0.125}), (2, {"loss": 9.0})])
    scalars, _ = writer_files.tensorboard(tmp_path)
    assert sorted(scalars["teacher/loss"]) == [(1, 0.5), (2, 0.125), (3, 0.25)]


def test_a_step_that_a_kill_cut_off_is_written_again(tmp_path):
    rows = [(1, {"loss": 0.5, "accuracy": 0.5}), (2, {"loss": 0.25, "accuracy": 0.75})]
    write_rows(tmp_path, rows[:1])
    (path,) = (tmp_path / "tensorboard").iterdir()
    size = path.stat().st_size
    path.unlink()
    write_rows(tmp_path, rows)
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    for cut in range(size, len(whole)):
        path.write_bytes(whole[:cut])
        write_rows(tmp_path, rows)
        scalars, _ = writer_files.tensorboard(tmp_path)
        assert scalars == {"teacher/loss": [(1, 0.5), (2, 0.25)], "teacher/accuracy": [(1, 0.5), (2, 0.75)]}, cut
        for other in (tmp_path / "tensorboard").iterdir():
            if other != path:
                other.unlink()


def test_two_writers_have_files_of_their_own_and_hold_nothing_back(tmp_path):
    one, other = (WRITERS["tensorboard"](tmp_path) for _ in range(2))
    one.write("synthesis", 0, {"cls": 1.0})
    other.write("synthesis", 1, {"cls": 2.0})
    one.write("synthesis", 2, {"cls": 3.0})
    scalars, _ = writer_files.tensorboard(tmp_path)
    one.close()
    other.close()
    assert sorted(scalars["synthesis/cls"]) == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_a_picture_is_written_once(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "samples.png")
    for _ in range(2):
        writer = WRITERS["tensorboard"](tmp_path)
        writer.picture("samples", tmp_path / "samples.png")
        writer.close()
    assert writer_files.tensorboard(tmp_path) == ({}, {"figures/samples": [0]})
