"""The matrix of architectures: what the cells of a row share, what is in the table and the file, and how it fails."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cake_jax import load

SCRIPT = Path(__file__).parents[2] / "scripts" / "matrix.py"
CELLS = ["narrow-narrow", "narrow-wide", "wide-wide", "wide-narrow"]
CONFIG = """
from cake_jax.config import default

WIDTHS = {"narrow": 8, "wide": 16}


def get_config(variant="narrow-narrow"):
    teacher, student = variant.split("-")
    config = default()
    config.dataset.name = "two_moons"
    config.dataset.max_train_examples = 600
    for section, name in ((config.teacher, teacher), (config.student, student)):
        section.epochs = 2
        section.model.options = {"width": WIDTHS[name]}
    config.synthesis.num_batches = 2
    config.synthesis.batch_size = 200
    config.synthesis.num_groups = 2
    config.synthesis.num_steps = 4
    return config
"""


def matrix(folder, *arguments):
    command = [sys.executable, str(SCRIPT), "--config=tiny.py", "--models=narrow,wide", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def tables(stdout):
    """The lines of each table, the header first."""
    found = []
    for line in stdout.splitlines():
        if line.startswith("| teacher | narrow"):
            found.append([line])
        elif line.startswith(("|---|---|---|", "| narrow", "| wide")):
            found[-1].append(line)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished matrix of two networks: its folder, and the process."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "tiny.py").write_text(CONFIG)
    process = matrix(folder, "--out=out.json", "--figure=map.png", "--config.seed=3")
    assert process.returncode == 0, process.stderr
    return folder, process


def test_a_row_shares_the_teacher_and_samples_of_its_first_cell_which_teaches_itself(finished):
    folder, _ = finished
    assert [run["variant"] for run in json.loads((folder / "out.json").read_text())["runs"]] == CELLS
    for cell in CELLS:
        teacher, student = cell.split("-")
        workdir, own = folder / "runs" / "tiny" / cell, folder / "runs" / "tiny" / f"{teacher}-{teacher}"
        stages = {json.loads(line)["stage"] for line in (workdir / "metrics.jsonl").read_text().splitlines()}
        assert stages == ({"teacher", "synthesis", "student"} if workdir == own else {"student"})
        config = json.loads((workdir / "config.json").read_text())
        assert {config["teacher"]["from_run"], config["synthesis"]["from_run"]} == (
            {""} if workdir == own else {str(own.relative_to(folder))}
        )
        ours, first = load(workdir), load(own)
        jax.tree.map(np.testing.assert_array_equal, ours.teacher.variables, first.teacher.variables)
        assert ours.results["samples"] == first.results["samples"]
        assert ours.results["samples"]["count"] == 400
        assert [model.variables["params"]["Dense_0"]["bias"].size for model in (ours.teacher, ours.student)] == [
            {"narrow": 8, "wide": 16}[name] for name in (teacher, student)
        ]


def test_the_table_the_file_and_the_figure_hold_every_cell(finished):
    folder, process = finished
    content = json.loads((folder / "out.json").read_text())
    assert content["command"].startswith("python")
    assert content["command"].endswith("--out=out.json --figure=map.png --config.seed=3")
    assert str(folder) not in json.dumps(content)
    runs = {run["variant"]: run for run in content["runs"]}
    for cell in CELLS:
        assert runs[cell] == json.loads((folder / "runs" / "tiny" / cell / "results.json").read_text())
        assert runs[cell]["seed"] == 3  # what matrix.py does not know goes to each run

    *unfinished, last = tables(process.stdout)
    assert len(unfinished) == 3
    assert [line.count(" - ") for line in unfinished[0][2:]] == [1, 2]
    accuracies = {cell: f"{100 * run['student']['test_accuracy']:.1f}" for cell, run in runs.items()}
    teachers = {name: f"{100 * runs[f'{name}-{name}']['teacher']['test_accuracy']:.1f}" for name in ("narrow", "wide")}
    assert last == ["| teacher | narrow | wide |", "|---|---|---|"] + [
        f"| {name}, {teachers[name]} | {accuracies[f'{name}-narrow']} | {accuracies[f'{name}-wide']} |"
        for name in ("narrow", "wide")
    ]
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_runs_nothing_again(finished):
    folder, first = finished
    files = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    again = matrix(folder, "--config.seed=3")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("nothing to do") == len(CELLS)
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()} == files
    assert tables(again.stdout)[-1] == tables(first.stdout)[-1]


def test_a_run_that_fails_ends_it_in_one_line_after_the_run_s_own(finished):
    folder, _ = finished
    failed = matrix(
        folder, "--config.seed=3", "--config.synthesis.batch_size=7", "--workdir=failed", "--out=failed.json"
    )
    assert failed.returncode == 1
    lines = failed.stderr.splitlines()
    assert len(lines) == 2, failed.stderr
    assert lines[0].startswith("error: synthesis.batch_size: 7")
    assert re.fullmatch(r"error: this run failed: .*run\.py --config=tiny\.py:narrow-narrow .*batch_size=7", lines[1])
    assert not (folder / "failed.json").exists()
