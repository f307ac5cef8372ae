"""The commands and the example of docs/tutorial.md, in their order."""

import re
import shlex
from pathlib import Path

import in_process
import pytest
import runs

from cake_jax import export
from cake_jax.run.run_folder import saved_results

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (.*)$", TEXT.split("```python")[0], re.M)]
COMMANDS += [shlex.split(line) for line in re.findall(r"^    (.*)$", TEXT.rpartition("```")[2], re.M)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The folder in which every command was run, and what each wrote to stdout."""
    folder, written = tmp_path_factory.mktemp("tutorial"), []
    for program, *arguments in COMMANDS:
        if program == "cake-jax":
            ended = runs.command(*arguments, cwd=folder)
            assert ended.code == 0, ended.err
            written.append(ended.out)
        elif arguments[0] == "-m":
            assert arguments[:2] == ["-m", "cake_jax.export"]
            written.append(export.main(*(str(folder / path) for path in arguments[2:])))
        else:
            written.append(in_process.call(folder, Path(arguments[0]).name, *arguments[1:]))
    return folder, written


def test_the_commands_are_those_of_the_page():
    assert [command[0] for command in COMMANDS].count("cake-jax") == 5
    assert len(COMMANDS) == TEXT.count("\n    ") == 10


def test_a_finished_run_does_nothing(outputs):
    first, second = outputs[1][:2]
    assert "report: runs/first/report.html" in first
    assert "nothing to do" in second


def test_every_file_of_the_page_is_there(outputs):
    for name in set(re.findall(r"runs/[\w.]+\.\w+", TEXT)) | {"runs/first/report.html", "runs/first/student/README.md"}:
        assert (outputs[0] / name).is_file(), name


def test_the_runs_are_what_the_page_says(outputs):
    folder, written = outputs
    first, own = (saved_results(folder / "runs" / name) for name in ("first", "own"))
    assert own["seconds"]["teacher"] == 0
    assert own["teacher"]["test_accuracy"] == first["teacher"]["test_accuracy"]
    assert "student.epochs" in written[4]
    assert len([path for path in (folder / "runs" / "sweep").iterdir() if path.is_dir()]) == 4 + 2
    assert (folder / "runs" / "sweep" / "sweep.png").exists()


def test_the_example_prints_the_agreement(outputs, monkeypatch, capsys):
    monkeypatch.chdir(outputs[0])
    exec(compile(re.search(r"```python\n(.*?)```", TEXT, re.S)[1], "docs/tutorial.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert 0 < float(first) <= 1
    assert second == "(8, 8, 1) 13130"
