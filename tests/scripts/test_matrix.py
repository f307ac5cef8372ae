"""The matrix of architectures: the runs, and what the script prints and writes."""

import json

import jax
import numpy as np
import pytest
from in_process import script  # noqa: F401

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
CELLS = ["narrow-narrow", "narrow-wide", "wide-wide", "wide-narrow"]
ARGUMENTS = ["--config=tiny.py", "--models=narrow,wide", "--config.seed=3", "--config.student.epochs=1"]


def test_matrix_has_one_teacher_and_one_set_of_samples_for_each_row(script, tmp_path):  # noqa: F811
    (tmp_path / "tiny.py").write_text(CONFIG)
    out = script("matrix.py", *ARGUMENTS, "--out=out.json", "--figure=map.png")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["command"].endswith("matrix.py " + " ".join([*ARGUMENTS, "--out=out.json", "--figure=map.png"]))
    runs = {run["variant"]: run for run in content["runs"]}
    assert list(runs) == CELLS
    assert {run["seed"] for run in runs.values()} == {3}
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    for count in range(1, 5):
        assert matrix.table(content["runs"][:count], NAMES) in out

    workdir = tmp_path / "runs" / "tiny"
    for cell in CELLS:
        teacher, student = cell.split("-")
        own = f"{teacher}-{teacher}"
        stages = {json.loads(line)["stage"] for line in (workdir / cell / "metrics.jsonl").read_text().splitlines()}
        assert stages == ({"teacher", "synthesis", "student"} if cell == own else {"student"})
        config = json.loads((workdir / cell / "config.json").read_text())
        assert {config["teacher"]["from_run"], config["synthesis"]["from_run"]} == {
            "" if cell == own else f"runs/tiny/{own}"
        }
        ours, first = load_run(workdir / cell), load_run(workdir / own)
        assert ours.results == runs[cell]
        jax.tree.map(np.testing.assert_array_equal, ours.teacher.variables, first.teacher.variables)
        assert ours.results["samples"] == first.results["samples"]
        assert ours.results["samples"]["count"] == 180
        widths = [model.variables["params"]["Dense_0"]["bias"].size for model in (ours.teacher, ours.student)]
        assert widths == [{"narrow": 8, "wide": 16}[name] for name in (teacher, student)]

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = script("matrix.py", *ARGUMENTS)
    assert again.count("nothing to do") == len(CELLS)
    assert matrix.table(content["runs"], NAMES) in again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == files
