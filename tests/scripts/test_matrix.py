"""The matrix of architectures: the runs, and what the script prints and writes."""

import json

import in_process
import jax
import numpy as np
import pytest

from cake_jax import load_run
from cake_jax.report import matrix

CONFIG = """
from runs import small_config

WIDTHS = {"narrow": 8, "wide": 16}

def get_config(variant="narrow-narrow"):
    teacher, student = (WIDTHS[name] for name in variant.split("-"))
    return small_config(**{
        "teacher.model.options": {"width": teacher}, "student.model.options": {"width": student}, "teacher.epochs": 1
    })
"""
NAMES = ["narrow", "wide"]
CELLS = ["narrow-narrow", "wide-wide", "narrow-wide", "wide-narrow"]
ARGUMENTS = ["--config=tiny.py", "--models=narrow,wide", "--seeds=3", "--config.student.epochs=1"]
FILES = ["--out=out.json", "--figure=map.png", "--bars=bars.png"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished matrix of two networks: its folder, and the script's output."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "tiny.py").write_text(CONFIG)
    return folder, in_process.call(folder, "matrix.py", *ARGUMENTS, *FILES)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_shares_the_teacher_and_the_samples_of_its_first_run(finished, cell):
    runs = finished[0] / "runs" / "tiny"
    teacher, student = cell.split("-")
    own, folder = f"{teacher}-{teacher}-3", f"{cell}-3"
    stages = {json.loads(line)["stage"] for line in (runs / folder / "metrics.jsonl").read_text().splitlines()}
    assert stages == {"student", "evaluation"} | ({"teacher", "synthesis"} if teacher == student else set())
    config = json.loads((runs / folder / "config.json").read_text())
    shared = "" if teacher == student else f"runs/tiny/{own}"
    assert [config[stage]["from_run"] for stage in ("teacher", "synthesis")] == [shared, shared]
    run, first = load_run(runs / folder), load_run(runs / own)
    jax.tree.map(np.testing.assert_array_equal, run.teacher.variables, first.teacher.variables)
    assert run.results["samples"] == first.results["samples"]
    assert run.results["samples"]["count"] == 180
    widths = [model.variables["params"]["Dense_0"]["bias"].size for model in (run.teacher, run.student)]
    assert widths == [{"narrow": 8, "wide": 16}[name] for name in (teacher, student)]


def test_the_table_the_file_and_the_figure_hold_every_cell(finished):
    folder, out = finished
    content = json.loads((folder / "out.json").read_text())
    assert content["command"].endswith(" ".join(["matrix.py", *ARGUMENTS, *FILES]))
    assert str(folder) not in json.dumps(content)
    runs = content["runs"]
    assert [run["variant"] for run in runs] == CELLS
    for run in runs:
        results = load_run(folder / "runs" / "tiny" / f"{run['variant']}-3").results
        del results["environment"]["command"]
        assert run == results
        assert run["seed"] == 3
    for count in range(1, 5):
        assert matrix.table(runs[:count], NAMES) in out
    for name in ("map", "bars"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_runs_nothing_again(finished):
    folder, first = finished

    def times():
        return {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}

    before = times()
    again = in_process.call(folder, "matrix.py", *ARGUMENTS)
    assert again.count("nothing to do") == len(CELLS)
    assert times() == before
    last_table = again[again.rindex("| teacher |") :]
    assert first.endswith(last_table)
