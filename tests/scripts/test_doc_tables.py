"""Tables of the documents: they show the raw results, and the script finds what differs."""

import json
import runpy

import pytest
import runs

SCRIPT = runpy.run_path(str(runs.ROOT / "scripts" / "tables.py"))
filled = SCRIPT["filled"]

PAGE = """Text.

<!-- rows: raw.json
CAKE = cake
hard labels, ten rounds = ideal:few of other.json
-->

| method | access | accuracy, % | gradient queries | student | seconds |
|---|---|---|---|---|---|
| CAKE | all | 1 | 1 | 1 | 1 |
| hard labels, ten rounds | labels | 1 | 1 | 1 | 1 |

More text.
"""


def result(accuracy, *, gradients, seconds, **names):
    return {
        "method": "cake",
        "variant": "",
        "seed": 0,
        "teacher": {"test_accuracy": 0.99, "num_params": 1},
        "student": {
            "test_accuracy": accuracy,
            "test_agreement": 0.5,
            "test_kl": 0.1,
            "grid_agreement": None,
            "num_params": 1,
        },
        "samples": {"count": 10, "num_steps": 2, "teacher_queries": 3},
        "queries": {
            "synthesis": {"forward": 10, "gradient": gradients},
            "student": {"forward": 90, "gradient": 0},
        },
        "seconds": {"teacher": 100.0, "synthesis": seconds, "student": 2.0, "total": 200.0},
        **names,
    }


@pytest.fixture
def folder(tmp_path):
    """The files of raw results: two seeds of CAKE and another title, and a run without title."""
    cake = [result(value, gradients=2000, seconds=1.0, title="cake") for value in (0.5, 0.6)]
    other = result(0.1, gradients=0, seconds=9.0, title="noise")
    (tmp_path / "raw.json").write_text(json.dumps({"runs": [cake[0], other, cake[1]]}))
    single = result(0.25, gradients=0, seconds=3.25, method="ideal", variant="few")
    (tmp_path / "other.json").write_text(json.dumps({"runs": [single]}))
    return tmp_path


def test_cells_are_the_means_of_the_runs(folder):
    """The standard deviation of 50 and 60 is the square root of 50."""
    expected = PAGE.replace("all | 1 | 1 | 1 | 1", "all | 55.00 ± 7.07 | 2,000 | 55.0 % | 3.0")
    expected = expected.replace("labels | 1 | 1 | 1 | 1", "labels | 25.00 | 0 | 25.0 % | 5.2")
    assert filled(PAGE, folder) == expected
    assert filled(expected, folder) == expected


def test_forward_queries_are_those_of_samples_and_student(folder):
    page = PAGE.replace("gradient queries", "forward queries")
    assert "all | 55.00 ± 7.07 | 100 | " in filled(page, folder)


def test_the_control_has_the_same_seeds(folder):
    """Of seeds 0 and 1, CAKE has agreements of 50 and 50, and the other 75 and 60: 25 and 10 points more."""
    both = {"cake": (0.5, 0.5), "other": (0.75, 0.6)}
    made = []
    for title, agreements in both.items():
        for seed, agreement in enumerate(agreements):
            one = result(0.5, gradients=0, seconds=1.0, title=title, seed=seed)
            one["student"]["test_agreement"] = agreement
            made.insert(0, one)  # the order of the runs does not matter
    (folder / "raw.json").write_text(json.dumps({"runs": made}))
    page = PAGE.replace("seconds", "over the control").replace("ideal:few of other.json", "other")
    cells = [line.split("|")[-2].strip() for line in filled(page, folder).splitlines() if line.startswith("| ")]
    assert cells == ["over the control", "+0.00 ± 0.00", "+17.50 ± 10.61"]


WIDE = """<!-- cells: accuracy, %
few = n={row}, m=few of raw.json
many = n={row}, m=many of raw.json
-->

| data set | many | few |
|---|---|---|
| circles | 1 | 1 |
| two_moons | 1 | 1 |
"""


def test_a_table_of_one_figure_names_its_runs_by_row_and_column(folder):
    figures = {"n=circles, m=few": 0.5, "n=circles, m=many": 0.75, "n=two_moons, m=few": 0.25, "n=two_moons, m=many": 1}
    made = [result(value, gradients=0, seconds=1.0, title=title) for title, value in figures.items()]
    (folder / "raw.json").write_text(json.dumps({"runs": made}))
    *_, first, second = filled(WIDE, folder).splitlines()
    assert (first, second) == ("| circles | 75.00 | 50.00 |", "| two_moons | 100.00 | 25.00 |")
    with pytest.raises(SystemExit, match="no runs of the column 'all'"):
        filled(WIDE.replace("| many |", "| all |"), folder)
    with pytest.raises(SystemExit, match="has no run 'n=squares, m=many'"):
        filled(WIDE.replace("| circles |", "| squares |"), folder)
    with pytest.raises(SystemExit, match="there is no figure 'size'"):
        filled(WIDE.replace("accuracy, %", "size"), folder)
    with pytest.raises(SystemExit, match="names no file of the column 'few'"):
        filled(WIDE.replace("m=few of raw.json", "m=few"), folder)


def test_a_cell_has_the_mean_of_the_runs_that_have_the_figure(folder):
    gaps = [{"start": 0.0, "end": 0.0}, {"start": 4.0, "end": 1.0}, {"start": 4.0, "end": 3.0}]
    made = [result(0.5, gradients=0, seconds=1.0, title="n=circles, m=few", logit_gaps=one) for one in gaps]
    made += [result(0.5, gradients=0, seconds=1.0, title="n=circles, m=many", logit_gaps=gaps[0])]
    (folder / "raw.json").write_text(json.dumps({"runs": made}))
    page = WIDE.replace("accuracy, %", "logit gap, end / start").replace("| two_moons | 1 | 1 |\n", "")
    assert filled(page, folder).endswith("| circles | - | 0.50 ± 0.35 |\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CAKE = cake", "LAKE = lake", "no runs of the row 'CAKE'"),
        ("CAKE = cake", "CAKE = lake", "has no run 'lake'"),
    ],
)
def test_a_row_without_runs_is_an_error(folder, old, new, message):
    with pytest.raises(SystemExit, match=message):
        filled(PAGE.replace(old, new), folder)


@pytest.mark.parametrize("page", SCRIPT["PAGES"])
def test_the_documents_show_the_raw_results(page):
    text = (runs.ROOT / page).read_text()
    assert "<!-- rows: " in text
    assert filled(text, runs.ROOT) == text
