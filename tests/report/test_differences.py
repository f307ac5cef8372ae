"""Differences between the rows of a comparison, from made-up results."""

import json
import math
import runpy
import sys

import made_up
import numpy as np
import pytest
import runs

from cake_jax.report import differences
from cake_jax.types import CakeError


def run(title, seed, accuracy, agreement=None, grid=None):
    figures = {"test_accuracy": accuracy, "test_agreement": agreement, "grid_agreement": grid}
    student = made_up.results()["student"] | figures
    return {"title": title, **made_up.results(student=student, seed=seed)}


RUNS = [
    *(run("without steps", seed, accuracy, 0.5) for seed, accuracy in enumerate((0.88, 0.91, 0.5))),
    *(run("with steps", seed, accuracy, 0.5 + seed / 10) for seed, accuracy in enumerate((0.90, 0.92))),
]


def test_a_difference_and_its_errors_by_hand():
    """The gains are 2 and 1, and the variances 2 and 4.5. Unpaired: sqrt((2 + 4.5) / 2)."""
    found = differences.difference([90.0, 92.0], [88.0, 91.0])
    assert found == pytest.approx((1.5, math.sqrt(3.25), 0.5))


def test_the_errors_are_the_deviations_of_many_repetitions():
    """Rows of ten seeds whose values share half of their variance, from the teacher of a seed."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        teachers = rng.normal(size=10)
        own, control = (teachers + rng.normal(size=10) for _ in range(2))
        found.append(differences.difference(list(own), list(control)))
    assert np.std([one.mean for one in found]) == pytest.approx(np.sqrt(2 / 10), rel=0.05)
    assert np.sqrt(np.mean([one.paired_error**2 for one in found])) == pytest.approx(np.sqrt(2 / 10), rel=0.05)
    assert np.sqrt(np.mean([one.error**2 for one in found])) == pytest.approx(np.sqrt(4 / 10), rel=0.05)


def test_one_seed_has_no_errors():
    assert differences.difference([2.0], [1.5]) == pytest.approx((0.5, math.nan, math.nan), nan_ok=True)


def test_rows_without_a_common_seed_are_refused():
    with pytest.raises(CakeError, match="other: the row and its control have no seed in common"):
        differences.table([*RUNS, run("other", 7, 0.5)])


def test_the_grid_is_compared_if_a_row_has_it():
    """Gains of 10 and 20 points: the mean is 15, and the paired error sqrt(50 / 2) = 5."""
    grids = {("a", 0): 0.5, ("a", 1): 0.6, ("b", 0): 0.6, ("b", 1): 0.8}
    on_grid = [run(title, seed, 0.5, 0.5, grid) for (title, seed), grid in grids.items()]
    header, _, row = differences.table(on_grid).splitlines()
    assert header.endswith("| on the grid, points | on the grid ± | on the grid ±, paired |")
    assert row.endswith("| +15.00 | 11.18 | 5.00 |")


@pytest.mark.parametrize(
    ("control", "row"),
    [
        ("", "| with steps | 2 | +1.50 | 1.80 | 0.50 | +5.00 | 5.00 | 5.00 |"),
        ("with steps", "| without steps | 2 | -1.50 | 1.80 | 0.50 | -5.00 | 5.00 | 5.00 |"),
    ],
)
def test_the_table_has_each_row_against_the_control(control, row):
    header, _, *rows = differences.table(RUNS, control).splitlines()
    assert header.startswith(f"| minus {control or 'without steps'} | seeds | accuracy, points | accuracy ± |")
    assert rows == [row]


def test_a_value_that_was_not_measured_is_a_dash():
    *_, row = differences.table([*RUNS, run("other", 0, None, 0.5), run("other", 1, 0.9, 0.5)]).splitlines()
    assert row == "| other | 2 | - | - | - | +0.00 | 0.00 | 0.00 |"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([*RUNS, RUNS[0]], "without steps has two runs of seed 0"),
        ([made_up.results()], "has no title"),
        ([], "no run has the title ''; there are none"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(found, message):
    with pytest.raises(CakeError, match=message):
        differences.table(found)


def test_the_script_prints_the_table_and_refuses_other_files(tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["differences.py", *map(str, arguments)])
        runpy.run_path(str(runs.ROOT / "scripts" / "differences.py"), run_name="__main__")

    file = tmp_path / "runs.json"
    file.write_text(json.dumps({"runs": RUNS}))
    call(file, "--control=with steps")
    assert capsys.readouterr().out.strip() == differences.table(RUNS, "with steps")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"runs": [run("other steps", 0, 0.8, 0.5), run("other", 0, 0.8, 0.5)]}))
    call(file, other, "--only=steps", "--control=with steps")
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["| without steps", "| other steps"]
    with pytest.raises(SystemExit, match="no run has the title 'steps'; there are without steps, with steps"):
        call(file, "--control=steps")
    with pytest.raises(SystemExit, match=r"error: .*none.json"):
        call(tmp_path / "none.json")
    file.write_text('["a"]')
    with pytest.raises(SystemExit, match=r"error: .*runs.json"):
        call(file)
