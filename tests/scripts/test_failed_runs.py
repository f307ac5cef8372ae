"""Comparisons of several runs in which one fails: it is named, and those that need it are left out."""

import json
import runpy
import sys

import pytest
import runs
from made_up import NOT_EVALUATED, results

from cake_jax.cli import many_runs


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A function that calls a script whose runs are made up, and returns the folders of the runs and the last words."""

    def call_script(name, failing, *arguments):
        asked = []

        def run(config, workdir, arguments, environment):
            asked.append(workdir.name)
            if workdir.name == failing:
                sys.exit("error: this run failed: the command")
            return results(
                variant=config.partition(":")[2], student=NOT_EVALUATED["student"], environment={"command": ""}
            )

        monkeypatch.setattr(many_runs, "run", run)
        monkeypatch.setattr(many_runs, "record", lambda folder: pytest.fail("read"))
        monkeypatch.setattr(sys, "argv", [name, "--config=tiny.py", f"--out={tmp_path / 'out.json'}", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(runs.ROOT / "scripts" / name), run_name="__main__")
        return asked, ended.value.code

    return call_script


def test_a_row_of_the_matrix_without_its_teacher_is_left_out(call, tmp_path):
    asked, words = call("matrix.py", "a-a-0", "--models=a,b")
    assert asked == ["a-a-0", "b-b-0", "b-a-0"]
    assert words == "error: this run failed: the command"
    assert [run["variant"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]] == ["b-b", "b-a"]


def test_a_comparison_leaves_out_the_runs_of_a_seed_without_its_teacher(call):
    asked, words = call("compare.py", "cake-0", "--methods=cake,noise", "--seeds=0")
    assert asked == ["cake-0"]
    assert words == "error: this run failed: the command"
