"""The smallest student and the fewest evaluations, from made-up results."""

import json
import runpy
import sys

import made_up
import pytest
import runs
from matplotlib.colors import same_color

from cake_jax.report import cheapest
from cake_jax.types import CakeError


def run(num_params, forward, gradient, agreement, title="a"):
    student = made_up.results()["student"] | {"num_params": num_params, "test_agreement": agreement}
    queries = {"synthesis": {"forward": forward, "gradient": gradient}, "student": {"forward": 0, "gradient": 0}}
    return {"title": title, **made_up.results(student=student, queries=queries)}


# Two seeds of the first choice: 90 and 94 %. A gradient counts as three: 10 + 3 * 30 = 100.
RUNS = [
    run(500, 1000, 0, 0.99),
    run(20, 100, 0, 0.80),
    run(20, 1000, 0, 0.90),
    run(20, 1000, 0, 0.94),
    run(500, 10, 30, 0.93),
]


def test_runs_are_taken_together_by_size_evaluations_and_settings():
    found = [
        (*one[:3], [round(a) for a in one.agreements]) for one in cheapest.choices([*RUNS, run(20, 1000, 0, 0.5, "b")])
    ]
    assert found == [
        (20, 100, "a", [80]),
        (20, 1000, "a", [90, 94]),
        (20, 1000, "b", [50]),
        (500, 100, "a", [93]),
        (500, 1000, "a", [99]),
    ]


@pytest.mark.parametrize(
    ("wanted", "small", "few"),
    [(75, (20, 100), (20, 100)), (92, (20, 1000), (500, 100)), (95, (500, 1000), (500, 1000))],
)
def test_the_smallest_student_and_the_fewest_evaluations_differ(wanted, small, few):
    options = cheapest.choices(RUNS)
    assert cheapest.smallest(options, wanted)[:2] == small
    assert cheapest.fewest(options, wanted)[:2] == few


def test_the_mean_decides_and_not_the_best_seed():
    assert cheapest.smallest(cheapest.choices(RUNS), 93).num_params == 500


def test_the_table_has_a_dash_where_nothing_reaches():
    *_, last, none = cheapest.table(cheapest.choices(RUNS), (92, 99.5)).splitlines()
    assert last == ("| 92 % | 20 parameters | 1,000 evaluations | 92.0 ± 2.8 % | 100 | 500 parameters | 93.0 % |")
    assert none == "| 99.5 % | - | - | - | - | - | - |"


def test_the_figure_has_one_line_for_each_size_and_better_is_higher():
    options = cheapest.choices([*RUNS, run(500, 5000, 0, 1.0)])
    figure = cheapest.curves({"one": options, "two": options[:1]})
    (axes,) = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["20 parameters", "500 parameters", "one", "two"]
    assert [line.lines[0].get_linestyle() for line in axes.containers] == ["-", "-", "--", "--"]
    low, high = axes.get_ylim()
    assert low > high, "the disagreement falls to the top"
    ((few, many), (bad, good)) = axes.containers[0].lines[0].get_data()
    assert (few, many) == (100, 1000)
    assert [bad, good] == pytest.approx([20, 8])
    assert axes.yaxis.get_major_formatter()(10, 0) == "90"


def test_each_method_of_a_file_is_a_family_of_its_own():
    by_ideal = [run(20, 100, 0, 0.9) | {"method": "ideal"}, run(20, 1000, 0, 0.95) | {"method": "ideal"}]
    found = cheapest.families("labels", [*RUNS[1:3], *by_ideal])
    assert {name: [one.mean for one in options] for name, options in found.items()} == {
        "cake, labels": [80, 90],
        "ideal, labels": [90, 95],
    }
    assert list(cheapest.families("labels", by_ideal)) == ["labels"]
    figure = cheapest.curves(found)
    lines = [line.lines[0] for line in figure.axes[0].containers]
    assert not same_color(lines[0].get_color(), lines[1].get_color())
    legend = figure.legends[0]
    assert legend.get_title().get_text() == "student of 20 parameters"
    assert [text.get_text() for text in legend.get_texts()] == list(found)
    for line, handle in zip(lines, legend.get_lines(), strict=True):
        assert same_color(line.get_color(), handle.get_color())
        assert line.get_linestyle() == handle.get_linestyle()


def test_a_run_without_agreement_is_refused():
    with pytest.raises(CakeError, match="cake has no agreement"):
        cheapest.choices([run(20, 100, 0, None)])


def test_the_script_prints_the_table_and_refuses_other_files(tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["smallest_student.py", *map(str, arguments)])
        runpy.run_path(str(runs.ROOT / "scripts" / "smallest_student.py"), run_name="__main__")

    (tmp_path / "folder").mkdir()
    one, two, other = (tmp_path / f"{name}.json" for name in ("sweep", "folder/sweep", "other"))
    one.write_text(json.dumps({"runs": RUNS[:2]}))
    two.write_text(json.dumps({"runs": RUNS[2:]}))
    other.write_text("[]")
    call(f"first={one}", two, "--wanted=92", f"--figure={tmp_path / 'figure.png'}")
    assert capsys.readouterr().out.strip() == cheapest.table(cheapest.choices(RUNS), (92,))
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        ([other], "error: "),
        ([one, two], f"error: {two}: another file has this name; call it NAME={two}"),
        ([tmp_path / "none.json"], "error: "),
        ([one, "--wanted=most"], "error: could not convert string to float: 'most'"),
    ):
        with pytest.raises(SystemExit) as ended:
            call(*arguments)
        assert str(ended.value.code).startswith(message)
        assert "\n" not in ended.value.code


def test_a_run_without_a_title_is_refused():
    with pytest.raises(CakeError, match="a run has no title"):
        cheapest.choices([{**run(20, 100, 0, 0.9), "title": None}])
