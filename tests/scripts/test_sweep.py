"""A sweep: its runs, what they share, and what the script prints and writes."""

import json
import runpy
import shutil
import sys

import in_process
import jax
import numpy as np
import pytest
import runs

from cake_jax import load_run
from cake_jax.cli import many_runs

CONFIG = """
from runs import small_config

def get_config(variant=""):
    return small_config(**{"synthesis.num_batches": 1, "teacher.epochs": 1, "student.epochs": 1})
"""
ARGUMENTS = [
    "--config=tiny.py",
    "--config.synthesis.num_steps=2,3",
    "--config.seed=4,5",
    "--config.synthesis.step_size=0.5",
]
FILES = ["--out=out.json", "--figure=figure.png"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of two fields: its folder, and the script's output."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.py").write_text(CONFIG)
    return folder, in_process.call(folder, "sweep.py", *ARGUMENTS, *FILES)


def test_every_combination_is_run_with_its_values(swept):
    folder, _ = swept
    for steps in (2, 3):
        for seed in (4, 5):
            path = folder / "runs" / "sweep-tiny" / f"num_steps={steps},seed={seed}"
            config = json.loads((path / "config.json").read_text())
            assert (config["synthesis"]["num_steps"], config["seed"]) == (steps, seed)
            assert config["synthesis"]["step_size"] == 0.5
    folders = {path.name for path in (folder / "runs" / "sweep-tiny").iterdir() if path.is_dir()}
    assert {name for name in folders if name.startswith("teacher")} == {"teacher-seed=4", "teacher-seed=5"}
    assert len(folders) == 6


def test_runs_of_a_seed_share_a_teacher_of_its_own_run(swept):
    folder, _ = swept
    of = {
        (steps, seed): load_run(folder / "runs" / "sweep-tiny" / f"num_steps={steps},seed={seed}")
        for steps in (2, 3)
        for seed in (4, 5)
    }
    for seed in (4, 5):
        jax.tree.map(np.testing.assert_array_equal, of[2, seed].teacher.variables, of[3, seed].teacher.variables)
        assert of[2, seed].results["seconds"]["teacher"] == of[3, seed].results["seconds"]["teacher"] == 0
        teacher = load_run(folder / "runs" / "sweep-tiny" / f"teacher-seed={seed}")
        jax.tree.map(np.testing.assert_array_equal, of[2, seed].teacher.variables, teacher.teacher.variables)
        assert teacher.results["seconds"]["teacher"] > 0
        assert teacher.results["samples"]["count"] == 0
    assert of[2, 4].results["teacher"] != of[2, 5].results["teacher"]


def test_the_table_the_file_and_the_figure_hold_all_runs(swept):
    folder, out = swept
    table = [line for line in out[out.index("| settings") :].splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in table[2:]] == ["num_steps=2", "num_steps=3"]
    content = json.loads((folder / "out.json").read_text())
    assert [(run["title"], run["seed"]) for run in content["runs"]] == [
        (f"num_steps={steps}", seed) for steps in (2, 3) for seed in (4, 5)
    ]
    assert content["runs"][0]["values"] == {"config.synthesis.num_steps": "2", "config.seed": "4"}
    assert all(run["logit_gaps"]["end"] > 0 for run in content["runs"])
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_runs_nothing_again(swept):
    folder, first = swept
    again = in_process.call(folder, "sweep.py", *ARGUMENTS)
    assert again.count("nothing to do") == 6
    assert (folder / "runs" / "sweep-tiny" / "sweep.png").read_bytes() == (folder / "figure.png").read_bytes()
    assert "runs" in json.loads((folder / "runs" / "sweep-tiny" / "sweep.json").read_text())
    assert again[again.index("| settings") :].splitlines() == first[first.index("| settings") :].splitlines()


def test_a_sweep_is_extended(swept, tmp_path):
    folder = shutil.copytree(swept[0], tmp_path / "copy")
    more = [ARGUMENTS[1].replace("2,3", "1,2,3") if "num_steps" in argument else argument for argument in ARGUMENTS]
    again = in_process.call(folder, "sweep.py", *more)
    assert again.count("nothing to do") == 6
    assert len([path for path in (folder / "runs" / "sweep-tiny").iterdir() if path.is_dir()]) == 8


@pytest.mark.parametrize("failed", ["seed=1", "teacher-seed=1"])
def test_a_failed_run_is_named_after_the_others(failed, tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(CONFIG)
    asked = []

    def run(config, workdir, arguments, environment):
        asked.append((workdir.name, environment))
        if workdir.name == failed:
            sys.exit("error: this run failed: the command")
        results = json.loads(RESULTS)
        return results | {"seed": int(workdir.name[-1])}

    monkeypatch.setattr(many_runs, "run", run)
    monkeypatch.setattr(
        sys, "argv", ["sweep.py", "--config=tiny.py", "--config.seed=0,1,2", "--devices=3,5", "--out=out.json"]
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(runs.ROOT / "scripts" / "sweep.py"), run_name="__main__")
    assert ended.value.code == "error: this run failed: the command"
    assert [run["seed"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]] == [0, 2]
    names = [f"{kind}seed={seed}" for kind in ("", "teacher-") for seed in range(3)]
    if failed.startswith("teacher"):
        names.remove("seed=1")  # the points of this teacher are left out
    assert [name for name, _ in sorted(asked, key=str)] == names
    assert {environment["CUDA_VISIBLE_DEVICES"] for _, environment in asked} == {"3", "5"}


RESULTS = json.dumps(
    {
        "method": "cake",
        "environment": {},
        "variant": "",
        "teacher": {"test_accuracy": 0.9, "num_params": 1},
        "student": dict.fromkeys(("test_accuracy", "test_agreement", "grid_agreement", "test_kl"), 0.5)
        | {"num_params": 1},
        "samples": {"count": 1, "num_steps": 1, "teacher_queries": 1},
        "queries": {"synthesis": {"forward": 1, "gradient": 0}},
        "seconds": {"teacher": 0.0, "synthesis": 1.0, "student": 1.0, "total": 2.0},
    }
)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--config.seed=1", "error: a sweep needs a field with several values, such as --config.seed=0,1,2"),
        ("--random=two", "error: argument --random: invalid int value: 'two'; see --help"),
        ("--config.seed=1,1", "error: config.seed: 1,1 has a value twice"),
        ("--randm=2", "error: '--randm=2' is no flag; see --help; did you mean random?"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line(argument, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--config=a.py", argument])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(runs.ROOT / "scripts" / "sweep.py"), run_name="__main__")
    message = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err.strip()
    assert message == line
