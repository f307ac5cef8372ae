"""The script that draws samples of several runs."""

import runpy
import sys

import matplotlib.image
import pytest
import runs


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sample_grid.py", *map(str, arguments)])
    runpy.run_path(str(runs.ROOT / "scripts" / "sample_grid.py"), run_name="__main__")


def test_runs_are_drawn_and_others_refused(tmp_path, monkeypatch):
    fields = {
        "dataset.name": "digits",
        "dataset.max_train_examples": 300,
        "run.student": False,
        "run.evaluation": False,
    }
    runs.run(runs.small_config(**fields), tmp_path / "seed=1")
    runs.run(runs.small_config(**{"run.student": False, "run.evaluation": False}), tmp_path / "moons")
    figure = tmp_path / "figure.png"
    call(monkeypatch, f"one={tmp_path / 'seed=1'}", f"two={tmp_path / 'seed=1'}", f"--figure={figure}")
    height, width, _ = matplotlib.image.imread(figure).shape
    assert width > 3 * height, "two rows of ten images"
    for arguments, message in (
        ([f"moons={tmp_path / 'moons'}"], "no samples that are images"),
        ([tmp_path / "moons"], "it must be NAME=FOLDER"),
        ([f"one={tmp_path / 'seed=1'}"] * 2, "another name for each row"),
    ):
        with pytest.raises(SystemExit, match=message):
            call(monkeypatch, *arguments, f"--figure={figure}")
