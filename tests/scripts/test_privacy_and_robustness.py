"""The scripts that attack teachers and students: their runs, and what they print and write."""

import json
import statistics

import in_process
import numpy as np
import pytest

BY_SPACE = ["samples, by pixels", "samples, by logits"]
CONFIG = """
from runs import small_config

def get_config(variant=""):
    fields = {"dataset.name": "digits", "dataset.max_train_examples": 300} if variant else {}
    return small_config(**fields, **{"teacher.epochs": 1, "student.epochs": 1, "synthesis.num_batches": 1})
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    return tmp_path


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
def test_the_halves_cover_all_examples_and_the_tables_are_means(folder):
    arguments = ["--config=tiny.py", "--dataset=two_moons", "--models=6", "--workdir=privacy", "--out=out.json"]
    printed = in_process.call(folder, "privacy.py", *arguments)
    figures = json.loads((folder / "out.json").read_text())["models"]
    halves = [np.load(folder / "privacy" / f"half-{number}.npz") for number in range(6)]
    rows = np.concatenate([half["x_train"] for half in halves])
    points, counts = np.unique(rows.round(4), axis=0, return_counts=True)
    assert set(counts) == {3}, "each example is in half of the six halves"
    assert len(points) > 1000
    for number in range(6):
        config = json.loads((folder / "privacy" / f"real-{number}" / "config.json").read_text())
        assert config["method"] == "real"
        assert config["teacher"]["from_run"] == f"privacy/samples-{number}"
        assert config["seed"] == number
    assert list(figures[0]["scores"]) == ["teacher", "student of samples", "student of training data", *BY_SPACE]
    values = [100 * one["scores"]["teacher"]["auc"] for one in figures]
    line = next(line for line in printed.splitlines() if line.startswith("| teacher"))
    assert cells_of(line)[1] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


@pytest.mark.slow
def test_the_students_of_each_seed_are_attacked(folder):
    pytest.importorskip("foolbox")
    for seed in (0, 1):
        compared = ["--config=tiny.py:digits", "--methods=noise,real", f"--seeds={seed}", "--workdir=runs"]
        in_process.call(folder, "compare.py", *compared)
    students = ["noise=runs/noise-{seed}", "real=runs/real-{seed}"]
    arguments = ["--seeds=0,1", "--epsilons=0.1,0.2", "--examples=50", "--out=out.json"]
    printed = in_process.call(folder, "robustness.py", *students, *arguments)
    seeds = json.loads((folder / "out.json").read_text())["seeds"]
    assert [list(figures) for figures in seeds] == [["teacher", "noise", "real"]] * 2
    values = [100 * figures["noise"]["attacks"]["PGD"][1] for figures in seeds]
    line = next(line for line in printed.splitlines() if line.startswith("| PGD | noise"))
    assert cells_of(line)[3] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert "| teacher | noise |" in printed, "transfer from the student to the teacher"


def test_a_folder_without_a_run_is_one_line(folder):
    with pytest.raises(SystemExit, match="error: nothing: no run here"):
        in_process.call(folder, "robustness.py", "one=nothing")


@pytest.mark.parametrize("students", [["teacher=nothing"], ["nothing"], ["one=a", "one=b"]])
def test_a_student_without_a_name_of_its_own_is_refused(students, folder, capsys):
    with pytest.raises(SystemExit):
        in_process.call(folder, "robustness.py", *students)
    assert capsys.readouterr().err.startswith(f"error: {' '.join(students)}: each must be NAME=FOLDER, each name once")


def test_too_few_models_are_refused_before_the_first_run(folder, capsys):
    with pytest.raises(SystemExit):
        in_process.call(folder, "privacy.py", "--config=tiny.py", "--dataset=digits", "--models=5")
    assert capsys.readouterr().err.startswith("error: --models: 5 is below 6; each image needs three models")


def test_a_seed_that_the_script_sets_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        in_process.call(folder, "privacy.py", "--config=tiny.py", "--dataset=digits", "--config.seed=1")
    assert capsys.readouterr().err.startswith("error: --config.seed: this script sets it")
