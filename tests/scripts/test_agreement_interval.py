"""The script that compares agreements with and without real data."""

import json
import runpy
import sys

import numpy as np
import pytest
import runs

from cake_jax import load_run
from cake_jax.evaluation import starts_agreement

SCRIPT = runs.ROOT / "scripts" / "agreement_interval.py"


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["agreement_interval.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def made_up(dataset, estimates, agreements, teachers=40):
    names = runs.module_of("agreement_interval").ESTIMATES
    return [
        {"dataset": dataset, "teacher_params": 1000, "run": f"{dataset}-{place}", "seed": place % teachers}
        | {"agreement": agreement, "estimates": dict.fromkeys(names, estimate)}
        for place, (estimate, agreement) in enumerate(zip(estimates, agreements, strict=True))
    ]


def test_the_table_has_coverage_and_width_from_other_data_and_from_other_teachers():
    """On data a, agreements are equal to their estimates. On b they are 1 point off, and two runs are far above."""
    steps = np.linspace(0.3, 0.7, 40)
    off = [0.99, 0.98, *(steps + 0.01 * (-1) ** np.arange(40))[2:]]
    script = runs.module_of("agreement_interval")
    rows = script.table([*made_up("a", steps, steps), *made_up("b", steps, off)]).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len(cells) == 2 * len(script.ESTIMATES)
    assert cells[0][:6] == ["a", "1,000", "40", "all images", "1.00", "100%"]
    assert int(cells[0][6].split()[0]) > 20, "the two runs of b make the intervals for a wide"
    assert cells[3][:3] == ["b", "1,000", "40"]
    assert cells[3][5:7] == ["0%", "0 points"], "all of b is off"
    assert 85 <= int(cells[3][7].rstrip("%")) <= 95, "runs of one kind of teacher are exchangeable"


def test_runs_of_the_same_teacher_say_nothing_about_it():
    """Two teachers with 20 runs each. One has the agreements that the estimates say, the other has far higher ones."""
    steps = np.linspace(0.3, 0.6, 40)
    script = runs.module_of("agreement_interval")
    row = script.table(made_up("a", steps, steps + 0.3 * (np.arange(40) % 2), teachers=2)).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")][5:8] == ["-", "-", "0%"]


def test_an_estimate_that_a_run_lacks_is_left_out():
    script = runs.module_of("agreement_interval")
    some = made_up("a", [0.5, 0.6], [0.5, 0.6])
    for run in some:
        run["estimates"]["sure at 99 %"] = None
    assert "sure at 99 %" not in script.table(some)
    assert [len(axes.lines) for axes in script.figure(some).axes] == [2, 2, 1]


def test_finished_runs_are_measured(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        fields = {"dataset.name": "digits", "dataset.max_train_examples": 300, "seed": seed, "synthesis.num_groups": 10}
        runs.run(runs.small_config(**fields, **{"synthesis.batch_size": 60}), tmp_path / f"run-{seed}")
    capsys.readouterr()
    call(
        monkeypatch,
        *(tmp_path / f"run-{seed}" for seed in (0, 1)),
        f"--out={tmp_path / 'out.json'}",
        f"--figure={tmp_path / 'f.png'}",
    )
    content = json.loads((tmp_path / "out.json").read_text())
    results = json.loads((tmp_path / "run-1" / "results.json").read_text())
    assert content["runs"][1]["agreement"] == results["student"]["test_agreement"]
    assert [content["runs"][1][name] for name in ("dataset", "seed")] == ["digits", 1]
    assert content["runs"][1]["teacher_params"] == results["teacher"]["num_params"]
    run = load_run(tmp_path / "run-0")
    estimates = [starts_agreement(run.student, run.teacher, least) for least in (0, 0.9, 0.99)]
    assert list(content["runs"][0]["estimates"].values()) == estimates
    assert estimates[0] != estimates[1]
    assert f"| digits | {results['teacher']['num_params']:,} | 2 | all images | - |" in capsys.readouterr().out
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: .*no run here"):
        call(monkeypatch, tmp_path)
