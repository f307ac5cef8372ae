"""Comparison of methods: the runs, and what the script prints and writes."""

import json

from in_process import script  # noqa: F401
from PIL import Image

CONFIG = """
from runs import small_config

def get_config(variant=""):
    return small_config(**{"synthesis.num_batches": 1, "teacher.epochs": 1})
"""
TITLES = ["real", "real:hard_label=teacher"]


def test_methods_are_compared_with_one_teacher_for_each_seed(script, tmp_path):  # noqa: F811
    (tmp_path / "tiny.py").write_text(CONFIG)
    out = script(
        "compare.py",
        "--config=tiny.py:some",
        f"--methods={','.join(TITLES)}",
        "--seeds=3,4",
        "--out=out.json",
        "--figure=figure.png",
        "--config.student.epochs=1",
    )
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["command"].startswith("python")
    assert content["command"].endswith("--out=out.json --figure=figure.png --config.student.epochs=1")
    runs = content["runs"]
    assert [(run["title"], run["seed"]) for run in runs] == [(title, seed) for seed in (3, 4) for title in TITLES]
    assert [run["method"] for run in runs] == ["real"] * 4
    assert runs[0]["teacher"] == runs[1]["teacher"] != runs[2]["teacher"]
    assert runs[0]["samples"]["count"] == runs[1]["samples"]["count"] > 0
    assert [run["logit_gaps"] for run in runs] == [None] * 4

    table = out[out.index("| method") :].splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == TITLES
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000  # the panels of the teacher and two students

    folders = ["real-4", "real-hard_label=teacher-4"]
    workdir = tmp_path / "runs" / "compare-tiny-some"
    first, second = (json.loads((workdir / name / "config.json").read_text()) for name in folders)
    assert [config["methods"]["real"]["hard_label"] for config in (first, second)] == ["data", "teacher"]
    assert [config["teacher"]["from_run"] for config in (first, second)] == ["", "runs/compare-tiny-some/real-4"]
    assert first["student"]["epochs"] == second["student"]["epochs"] == 1
