"""Scripts in the test's own process, whose runs share its compiled programs."""

import contextlib
import io
import runpy
import sys

import pytest
import runs

from cake_jax import report
from cake_jax.cli import many_runs
from cake_jax.run.run_folder import saved_results


def call(folder, name, *arguments):
    """Calls a script in a folder, with runs in this process and without their reports.

    Returns:
      The standard output of the script and its runs.
    """

    def run(config, workdir, arguments, environment=None):
        ended = runs.command(f"--config={config}", f"--workdir={workdir}", *arguments, cwd=folder)
        assert ended.code == 0, ended.err
        print(ended.out)
        return saved_results(folder / workdir)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(many_runs, "run", run)
        patch.setattr(report, "write", lambda record: None)
        patch.setattr(sys, "argv", [name, *arguments])
        patch.chdir(folder)
        runpy.run_path(str(runs.ROOT / "scripts" / name), run_name="__main__")
    return out.getvalue()
