"""The figures of a run: what `results.json` holds."""

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cake_jax import report
from cake_jax.config import Settings
from cake_jax.metrics import MetricsLog
from cake_jax.samples import SampleStore
from cake_jax.teachers import Teacher


def collect(
    config: ConfigDict,
    settings: Settings,
    teacher: Teacher | None,
    student: Teacher | None,
    store: SampleStore,
    figures: dict[str, Any],
    log: MetricsLog,
) -> dict[str, Any]:
    """The content of `results.json` but for the names of the config; a figure that nothing gave is null.

    Args:
      config: The config.
      settings: The same as typed arguments.
      teacher: The teacher, or None.
      student: The student, or None.
      store: The samples; may be empty.
      figures: Of `evaluate` on real data, by `teacher`, `student`, and `rounds`: a list, of students on the way.
      log: The metrics, for the seconds.
    """
    of_teacher, of_student = figures.get("teacher", {}), figures.get("student", {})
    synthesis = store.totals()
    seconds = {stage: log.seconds(stage) for stage in ("teacher", "synthesis", "student")}
    return {
        "method": config.method,
        "seed": config.seed,
        "teacher": {
            "test_accuracy": of_teacher.get("accuracy"),
            "num_params": teacher.num_params if teacher else None,
        },
        "student": {
            "test_accuracy": of_student.get("accuracy"),
            "test_agreement": of_student.get("agreement"),
            "test_kl": of_student.get("kl"),
            "grid_agreement": report.grid_agreement(student, teacher),
            "test_accuracy_per_class": of_student.get("per_class_accuracy"),
            "num_params": student.num_params if student else None,
        },
        "samples": {
            "count": store.count,
            "num_steps": max((e["num_steps"] for e in store.entries.values()), default=settings.synthesis.num_steps),
            "teacher_queries": sum(synthesis.values()),
        },
        "rounds": [
            {"round": one["round"], "test_accuracy": one["accuracy"], "test_agreement": one["agreement"]}
            for one in figures.get("rounds", [])
        ],
        "queries": {"synthesis": synthesis, "student": {"forward": 0, "gradient": 0}},
        "seconds": {**seconds, "total": sum(seconds.values())},
        "environment": {
            "jax": jax.__version__,
            "devices": [device.device_kind for device in jax.local_devices()],
            "commit": _commit(),
        },
    }


def _commit() -> str:
    """The commit of the source tree, or the version of the package where it is installed without one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"cake_jax {importlib.metadata.version('cake_jax')}"
