"""The results of a run: the content of `results.json`."""

import contextlib
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from cake_jax.evaluation import grid_agreement
from cake_jax.run.settings import RunSettings
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher
from cake_jax.version import __version__

# The source tree, if there is one.
_ROOT = Path(__file__).parents[2]
# The student's results: their names in `results.json`, and their names in `evaluation.evaluate`.
_STUDENT_FIGURES = {"test_accuracy": "accuracy", "test_agreement": "agreement", "test_kl": "kl"}


def collect(
    settings: RunSettings,
    teacher: Teacher | None,
    student: Teacher | None,
    store: SampleStore,
    figures: dict[str, Any],
    log: MetricsLog,
    baseline: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of `results.json` without the config's name. A value that was not measured is None.

    Args:
      settings: The run's settings.
      teacher: The run's own teacher, or None.
      student: The student, or None.
      store: The sample store. It may be empty.
      figures: Results of `evaluate` on real data: `teacher`, `student`, and `rounds`, a list.
      log: The metrics, which hold the seconds of each stage.
      baseline: The results of the baseline's run, or None.
    """
    of_teacher, of_student = figures.get("teacher", {}), dict(figures.get("student", {}))
    queries = {
        "synthesis": store.totals(),
        "student": {
            "forward": log.total("student", "queries"),
            "gradient": log.total("student", "gradient_queries"),
        },
    }
    seconds = {stage: float(log.total(stage, "seconds")) for stage in ("teacher", "synthesis", "student")}
    steps = [entry["num_steps"] for entry in store.entries.values()]
    of_student.pop("teacher_accuracy", None)
    return {
        "method": settings.method,
        "seed": settings.seed,
        "teacher": {
            "test_accuracy": of_teacher.get("accuracy"),
            "num_params": teacher.num_params if teacher else None,
        },
        "student": {
            **{name: of_student.pop(figure, None) for name, figure in _STUDENT_FIGURES.items()},
            "grid_agreement": grid_agreement(student, teacher),
            "test_accuracy_per_class": of_student.pop("per_class_accuracy", None),
            # Values of evaluators that a user has added.
            **{f"test_{name}": value for name, value in of_student.items()},
            "num_params": student.num_params if student else None,
        },
        "samples": {
            "count": store.count,
            "num_steps": max(steps, default=settings.samples.synthesis.num_steps),
            "teacher_queries": sum(sum(counts.values()) for counts in queries.values()),
        },
        "rounds": [
            {"round": one["round"], "test_accuracy": one["accuracy"], "test_agreement": one["agreement"]}
            for one in figures.get("rounds", [])
        ],
        "baseline": baseline
        and {
            **{name: baseline["student"][name] for name in _STUDENT_FIGURES},
            "queries": baseline["queries"],
        },
        "queries": queries,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "environment": {
            "jax": jax.__version__,
            "devices": [device.device_kind for device in jax.local_devices()],
            "commit": _commit(),
            "date": time.strftime("%Y-%m-%d"),
            "command": _command(),
        },
    }


def _command() -> str:
    """The command of this process, without the folder of the interpreter or of an installed command."""
    program, *arguments = sys.orig_argv
    if arguments and Path(arguments[0]).name == "cake-jax":
        program, *arguments = arguments
    return shlex.join([Path(program).name, *arguments])


def _commit() -> str:
    """The commit of the source tree, or the package's version if there is no source tree."""
    # An installed package may lie within the source tree of another project.
    if (_ROOT / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return f"cake_jax {__version__}"
