"""Scripts in the test's own process, so that their runs share its compiled programs."""

import contextlib
import io
import runpy
import sys

import pytest
import runs

from cake_jax.cli import runner
from cake_jax.run.folder import saved_results

SCRIPTS = runs.ROOT / "scripts"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """A function that calls a script in `tmp_path`, with runs in this process, and returns its standard output."""

    def run(config, workdir, arguments):
        ended = runs.command(f"--config={config}", f"--workdir={workdir}", *arguments, cwd=tmp_path)
        assert ended.code == 0, ended.err
        print(ended.out)
        return saved_results(tmp_path / workdir)

    def call(name, *arguments):
        monkeypatch.setattr(runner, "run", run)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return out.getvalue()

    return call
