"""Finished runs side by side: names, results, differing settings, and the page."""

import base64
import json

import made_up
import pytest
from cake_errors import message_of

from cake_jax.cli import many_runs
from cake_jax.report import side_by_side


@pytest.fixture
def folders(tmp_path):
    """Two finished runs that differ in a method's setting, a result and a warning."""
    made = []
    for name, steps, agreement in (("one", 2, 0.5), ("two", 3, 0.75)):
        folder = tmp_path / name / "run"
        (folder / "figures").mkdir(parents=True)
        student = made_up.results()["student"] | {"test_agreement": agreement}
        content = made_up.results(student=student, warnings=[f"{name} & <bad>"] if name == "two" else [])
        (folder / "results.json").write_text(json.dumps(content))
        methods = {"cake": {"depth": steps}, "noise": {"width": steps}}
        config = {"method": "cake", "seed": 3, "methods": methods, "log": {"only": name} if name == "two" else {}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "figures" / "training.png").write_bytes(name.encode())
        made.append(folder)
    return made


def test_names_are_the_shortest_ends_that_tell_runs_apart(folders, tmp_path):
    assert [run.name for run in many_runs.finished(folders)] == ["one/run", "two/run"]
    (tmp_path / "three").symlink_to(folders[0])
    assert [run.name for run in many_runs.finished(folders[:1])] == ["run"]
    assert message_of(many_runs.finished, [folders[0], tmp_path / "three"]) == "two of the folders are the same"
    (folders[1] / "results.json").unlink()
    assert message_of(many_runs.finished, folders) == f"{folders[1]} holds no finished run"


def test_settings_that_differ_are_those_of_used_methods(folders):
    assert side_by_side.differing_settings(many_runs.finished(folders)) == [
        ("log.only", ["-", '"two"']),
        ("methods.cake.depth", ["2", "3"]),
    ]
    assert side_by_side.differing_settings(many_runs.finished(folders[:1])) == []


def test_results_have_a_column_for_each_run(folders):
    rows = dict(side_by_side.results_table(many_runs.finished(folders)))
    assert rows["agreement, %"] == ["50.00", "75.00"]
    assert rows["gradient queries"] == ["500,000", "500,000"]
    assert "on starts, %" not in rows
    assert rows["teacher's accuracy, %"] == ["91.25", "91.25"]
    assert rows["teacher's parameters"] == ["12,345", "12,345"]
    assert rows["student's parameters"] == ["942", "942"]
    assert rows["seconds, student"] == ["3.00", "3.00"]
    text = side_by_side.text(many_runs.finished(folders))
    assert "|  | one/run | two/run |" in text
    assert "| methods.cake.depth | 2 | 3 |" in text


def test_the_page_holds_tables_figures_and_warnings(folders, tmp_path):
    side_by_side.write(tmp_path / "page.html", many_runs.finished(folders))
    page = (tmp_path / "page.html").read_text()
    for part in ("<td>75.00</td>", "<td>methods.cake.depth</td>", "two/run: two &amp; &lt;bad&gt;."):
        assert part in page
    for name in ("one", "two"):
        assert f"data:image/png;base64,{base64.b64encode(name.encode()).decode()}" in page
    assert page.count("<img") == 2
    assert "http" not in page
