"""The writer of Weights & Biases in its offline mode, read back from the file of the run."""

import contextlib

import pytest
import writer_files
from PIL import Image

from cake_jax.stores.metrics import WRITERS
from cake_jax.types import CakeError

wandb = pytest.importorskip("wandb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a run, which W&B records offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.json").write_text('{"seed": 3}')
    return tmp_path


def test_a_resumed_writer_continues_its_run_and_repeats_no_step(folder):
    Image.new("RGB", (30, 20)).save(folder / "samples.png")
    first = WRITERS["wandb"](folder)
    first.write("teacher", 1, {"loss": 0.5, "none": None, "text": "a", "list": [1.0]})
    first.write("teacher", 2, {"loss": 0.25})
    first.picture("samples", folder / "samples.png")
    first.close()
    second = WRITERS["wandb"](folder)
    second.write("teacher", 2, {"loss": 9.0})
    second.write("synthesis", 2, {"cls": 1.5})
    second.picture("samples", folder / "samples.png")
    second.close()
    (one, other), codes, rows = writer_files.wandb(folder)
    assert one == other
    assert codes == [0, 0]
    assert [row for row in rows if "figures/samples/path" not in row] == [
        {"teacher/step": 1, "teacher/loss": 0.5},
        {"teacher/step": 2, "teacher/loss": 0.25},
        {"synthesis/step": 2, "synthesis/cls": 1.5},
    ]
    assert len(rows) == 4


def test_a_run_that_an_error_ends_has_failed(folder):
    with pytest.raises(KeyboardInterrupt), contextlib.closing(WRITERS["wandb"](folder)):
        raise KeyboardInterrupt
    _, codes, _ = writer_files.wandb(folder)
    assert codes == [1]


def test_a_run_that_wandb_refuses_is_one_line(folder, monkeypatch):
    def refuse(**options):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(CakeError) as caught:
        WRITERS["wandb"](folder)
    message = "log.wandb: No API key configured; run `wandb login`, or set WANDB_MODE=offline"
    assert str(caught.value) == message
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_other_processes_record_nothing(folder, monkeypatch):
    monkeypatch.setattr("cake_jax.parallel.is_first", lambda: False)
    writer = WRITERS["wandb"](folder)
    writer.write("synthesis", 1, {"cls": 1.5})
    writer.picture("samples", folder / "samples.png")
    writer.close()
    assert [path.name for path in folder.iterdir()] == ["config.json"]
