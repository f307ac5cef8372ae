"""Comparison of methods: the runs, and what the script prints and writes."""

import json

import in_process
import numpy as np
import pytest
from PIL import Image

from cake_jax import data, load_run
from cake_jax.cli import many_runs

CONFIG = """
from runs import small_config

def get_config(variant=""):
    return small_config(**{"synthesis.num_batches": 1, "teacher.epochs": 1})
"""
TITLES = ["real", "real:hard_label=teacher:student.hard_weight=0.5"]
ARGUMENTS = [f"--methods={','.join(TITLES)}", "--seeds=3,4", "--config.student.epochs=1"]
FILES = ["--out=out.json", "--figure=figure.png"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished comparison of a method with itself: its folder, and the script's output."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.py").write_text(CONFIG)
    return folder, in_process.call(folder, "compare.py", "--config=tiny.py:some", *ARGUMENTS, *FILES)


def test_the_file_holds_the_command_and_all_runs(compared):
    folder, _ = compared
    content = json.loads((folder / "out.json").read_text())
    assert content["command"].startswith("python")
    assert content["command"].endswith(f"{ARGUMENTS[-1]} {' '.join(FILES)}")
    runs = content["runs"]
    assert [(run["title"], run["seed"]) for run in runs] == [(title, seed) for seed in (3, 4) for title in TITLES]
    assert [run["method"] for run in runs] == ["real"] * 4
    assert [run["variant"] for run in runs] == ["some"] * 4
    assert [run["logit_gaps"] for run in runs] == [run["starts_agreement"] for run in runs] == [None] * 4
    assert runs[0]["samples"]["count"] == runs[1]["samples"]["count"] == 60


def test_a_comma_within_brackets_separates_no_methods(monkeypatch, tmp_path):
    jobs = []
    monkeypatch.setattr(many_runs, "run_all", lambda made, devices: [jobs.append(job) or "failed" for job in made])
    with pytest.raises(SystemExit, match="failed"):
        in_process.call(tmp_path, "compare.py", "--config=a.py", "--methods=cake:fields.b=('c','d'),lake", "--seeds=0")
    assert [job.arguments[-1] for job in jobs] == ["--config.fields.b=('c','d')"]


def test_the_methods_share_one_teacher_for_each_seed(compared):
    folder, _ = compared
    runs = json.loads((folder / "out.json").read_text())["runs"]
    assert runs[0]["teacher"] == runs[1]["teacher"] != runs[2]["teacher"]
    configs = [
        json.loads((folder / "runs" / "compare-tiny-some" / name / "config.json").read_text())
        for name in ("real-4", f"{TITLES[1].replace(':', '-')}-4")
    ]
    assert [config["teacher"]["from_run"] for config in configs] == ["", "runs/compare-tiny-some/real-4"]
    assert [config["methods"]["real"]["hard_label"] for config in configs] == ["data", "teacher"]
    assert [config["student"]["hard_weight"] for config in configs] == [0.0, 0.5]
    assert [config["student"]["epochs"] for config in configs] == [1, 1]


@pytest.mark.parametrize("title", TITLES)
def test_the_samples_of_real_are_the_training_data(compared, title):
    dataset = data.load(data.DataSettings("two_moons", max_train_examples=600))
    run = load_run(compared[0] / "runs" / "compare-tiny-some" / f"{title.replace(':', '-')}-4")
    samples, answers = run.samples.select(), run.teacher.predict(dataset.train_x[:60]).argmax(axis=1)
    np.testing.assert_array_equal(samples.x, dataset.train_x[:60])
    assert (answers != dataset.train_y[:60]).any()
    np.testing.assert_array_equal(samples.target, dataset.train_y[:60] if title == "real" else answers)


def test_the_table_has_a_row_for_each_method(compared):
    _, out = compared
    table = [line for line in out[out.index("| method") :].splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in table[2:]] == TITLES


def test_the_figure_has_the_regions_of_the_teacher_and_two_students(compared):
    folder, _ = compared
    with Image.open(folder / "figure.png") as figure:
        assert figure.width > 1000
