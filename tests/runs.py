"""Helpers for tests of whole runs: a small config, ways to start a run, and the content of a run's folder.

Runs start in the test's own process, which has imported JAX already. Only tests of processes and kills start others.
"""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import termios
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from cake_jax.cli import main
from cake_jax.config import default, resolve
from cake_jax.run import experiment
from cake_jax.run.run_folder import load_run

ROOT = Path(__file__).parents[1]


def module_of(name):
    """A script of the folder `scripts` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_config(**fields):
    """A config on two moons that runs in a second once its programs are compiled.

    Args:
      **fields: Other values of fields: `small_config(**{"synthesis.num_steps": 6})`.
    """
    config = default()
    config.dataset.name = "two_moons"
    config.dataset.max_train_examples = 600
    config.teacher.epochs = config.student.epochs = 3
    config.synthesis.num_groups = 2
    config.synthesis.num_batches = 3
    config.synthesis.batch_size = 60
    config.synthesis.num_steps = 5
    config.update_from_flattened_dict(fields)
    return config


def run(config, workdir, *, config_name="moons", variant="", overwrite=False, report=True, quiet=False):
    """Runs a config as the command line does.

    Args:
      config: The config.
      workdir: The run's folder.
      config_name: Name of the config.
      variant: Variant of the config.
      overwrite: Whether the run of another config is deleted.
      report: Whether the report is written. Its figures take half of a small run's time.
      quiet: Whether neither progress nor results are printed.

    Returns:
      The content of `results.json`.
    """
    settings = resolve(config, None if overwrite else workdir)
    with contextlib.nullcontext() if report else mock.patch("cake_jax.report.write"):
        names = {"config_name": config_name, "variant": variant}
        return experiment.run(settings, workdir, **names, overwrite=overwrite, quiet=quiet)


class Ended(NamedTuple):
    """An ended command: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def command(*arguments, cwd=ROOT):
    """Runs the command line with these arguments, in this process. The devices stay those of the tests."""
    argv = ["run.py", f"--cpu_devices={jax.device_count()}", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", argv))
        stack.enter_context(mock.patch.object(sys, "unraisablehook", sys.unraisablehook))
        for context in (
            flagsaver.flagsaver(),
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            stack.enter_context(context)
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)  # config_flags calls it
        ended = stack.enter_context(pytest.raises(SystemExit))
        main()
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


def script(*arguments, cwd=ROOT):
    """Runs `scripts/run.py` in a process of its own, which takes seconds to import JAX."""
    line = [sys.executable, str(ROOT / "scripts" / "run.py"), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=300)
    return Ended(done.returncode, done.stdout, done.stderr)


def error_of(ended):
    """The message of a failed command. It must be the only line on stderr, without a traceback."""
    assert ended.code in (1, 2)
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in ended.err + ended.out
    return line.removeprefix("error: ")


def results_of(folder):
    """The results of a run that another run of its config must reproduce."""
    results = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in results.items() if name not in ("seconds", "environment")}


def metrics_of(folder, stage=None):
    """The lines of a run's metrics: those of one stage, or all."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if stage in (None, row["stage"])]


def outcome_of(folder):
    """All that a run must reproduce bitwise: results, models, samples and metrics, except for times."""
    run = load_run(folder)
    weights = [
        np.asarray(leaf).tobytes() for model in (run.teacher, run.student) for leaf in jax.tree.leaves(model.variables)
    ]
    metrics = sorted(json.dumps({**row, "seconds": 0}) for row in metrics_of(folder))
    return results_of(folder), weights, [entry["sha256"] for entry in run.samples.entries.values()], metrics


def drop_results(folder, *models):
    """Makes a finished run unfinished: its results are deleted, and the named models with them."""
    (folder / "results.json").unlink()
    for name in models:
        (folder / name / "model.json").unlink()


class Terminal(io.StringIO):
    """A terminal of 80 columns, for `contextlib.redirect_stderr`."""

    def __init__(self):
        super().__init__()
        _, self._end = os.openpty()
        termios.tcsetwinsize(self._end, (24, 80))

    def isatty(self):
        return True

    def fileno(self):
        return self._end

    def drawn(self):
        """All lines that were drawn, in order."""
        return [line.rstrip() for line in self.getvalue().replace("\r", "\n").splitlines() if line.strip()]
