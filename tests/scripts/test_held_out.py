"""The script that measures students on their teacher's held-out training data."""

import json
import runpy
import sys

import pytest
import runs


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["held_out.py", *map(str, arguments)])
    runpy.run_path(str(runs.ROOT / "scripts" / "held_out.py"), run_name="__main__")


def test_the_teacher_is_measured_on_its_own_validation_data(tmp_path, monkeypatch, capsys):
    """The accuracy is that of the last epoch in the log of the teacher's training, also for a run with its teacher."""
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out.json"
    fields = {"run.evaluation": False, "teacher.epochs": 1}
    runs.run(runs.small_config(**fields, seed=3), first, report=False)
    runs.run(runs.small_config(**fields, seed=4, **{"teacher.from_run": str(first)}), second, report=False)
    *_, row = runs.metrics_of(first, "teacher")
    capsys.readouterr()
    call(monkeypatch, first, second, f"--out={out}")
    printed, figures = capsys.readouterr().out, json.loads(out.read_text())["runs"]
    for folder in (first, second):
        assert figures[str(folder)]["teacher_accuracy"] == pytest.approx(row["validation_accuracy"])
        assert f"| {folder} | {100 * row['validation_accuracy']:.2f} |" in printed
    assert figures[str(first)]["kl"] != figures[str(second)]["kl"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"teacher.validation_fraction": 0.0}, "held out no training data"), ({"run.student": False}, "not finished")],
)
def test_a_run_that_cannot_be_measured_is_refused(fields, message, tmp_path, monkeypatch):
    runs.run(
        runs.small_config(**fields, **{"run.evaluation": False, "teacher.epochs": 1}), tmp_path / "run", report=False
    )
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, tmp_path / "run")
