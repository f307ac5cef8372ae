"""The notebook, executed from top to bottom in its small form."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "notebooks" / "cake_jax.ipynb"
CELLS = json.loads(PATH.read_text())["cells"]


def test_the_notebook_is_kept_without_outputs():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_every_cell_runs_and_its_students_are_good(monkeypatch, capsys, tmp_path):
    shown = []
    display = types.SimpleNamespace(HTML=str, display=shown.append)
    monkeypatch.setenv("SMALL", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    names = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            if "IPython" in "".join(cell["source"]):
                monkeypatch.setitem(sys.modules, "IPython.display", display)
                monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    out = capsys.readouterr().out
    assert shown[0].startswith("<!doctype html>")
    agreements = [
        float(line.split()[-1].rstrip("%"))
        for line in out.splitlines()
        if line.startswith("student ") and "agreement" in line
    ]
    assert len(agreements) == (3 if importlib.util.find_spec("torch") else 2)
    assert min(agreements) > 93
    assert float(out.split()[-1]) < 1e-4  # the exported student answers as the student does
    assert (names["folder"] / "run" / "results.json").exists()


@pytest.mark.parametrize("mark", ["!", "%"])
def test_no_cell_needs_more_than_python(mark):
    assert not any(line.startswith(mark) for cell in CELLS for line in cell["source"] if cell["cell_type"] == "code")
