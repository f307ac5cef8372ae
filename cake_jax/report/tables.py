"""The main results of a run, as typed values, as a summary, and as a Markdown table."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cake_jax import checks
from cake_jax.files import read_json
from cake_jax.methods import Queries
from cake_jax.types import CakeError


@dataclasses.dataclass(frozen=True)
class RunFigures:
    """The main results of a run. A value that was not measured is None.

    Attributes:
      method: Name of the method.
      seed: Seed of the run.
      variant: Variant of the config, or empty.
      teacher_accuracy: The teacher's accuracy on the test set, 0 to 1.
      teacher_params: Number of the teacher's parameters.
      student_accuracy: The student's accuracy on the test set, 0 to 1.
      student_params: Number of the student's parameters.
      agreement: Agreement of student and teacher on the test set, 0 to 1.
      guide_accuracy: Accuracy of the guide student after the last round on the test set, 0 to 1. None if the method has
        no guide student.
      grid_agreement: Agreement on the grid of `evaluation.grid`, 0 to 1.
      kl: Mean KL(teacher || student) on the test set, in nats.
      samples: Number of samples.
      num_steps: Number of steps of a sample.
      forward_queries: Number of forward queries, of synthesis and student.
      gradient_queries: Number of gradient queries, of synthesis and student.
      teacher_queries: Number of queries of both kinds.
      baseline_accuracy: Accuracy of the baseline's student on the test set, 0 to 1.
      baseline_agreement: Its agreement with the teacher, 0 to 1.
      baseline_evaluations: Evaluations of the teacher that the baseline cost, where a gradient counts as three.
      seconds: Seconds of each stage, and their `total`.
      logit_gaps: Result of `comparison.logit_gaps`. None if `results` does not hold it.
      starts_agreement: Result of `evaluation.starts_agreement`. None if `results` does not hold it.

    Raises:
      CakeError: A value is of another type.
    """

    method: str
    seed: int
    variant: str
    teacher_accuracy: float | None
    teacher_params: int | None
    student_accuracy: float | None
    student_params: int | None
    agreement: float | None
    guide_accuracy: float | None
    grid_agreement: float | None
    kl: float | None
    samples: int
    num_steps: int
    forward_queries: int
    gradient_queries: int
    teacher_queries: int
    baseline_accuracy: float | None
    baseline_agreement: float | None
    baseline_evaluations: int | None
    seconds: dict[str, float]
    logit_gaps: dict[str, float] | None
    starts_agreement: float | None

    def __post_init__(self) -> None:
        checks.fields(self)
        for stage in ("teacher", "synthesis", "student", "total"):
            checks.kind(f"RunFigures.seconds: {stage}", self.seconds.get(stage), int | float, "a number")

    @property
    def evaluations(self) -> int:
        """Evaluations of the teacher that the run cost, where a gradient counts as three."""
        return Queries(self.forward_queries, self.gradient_queries).evaluations


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a file that `scripts/compare.py`, `sweep.py` or another script has written.

    Raises:
      CakeError: The file holds no runs.
      OSError: The file is missing or cannot be read.
    """
    match read_json(path):
        case {"runs": [*found]} if all(isinstance(one, dict) for one in found):
            return found
    raise CakeError(f"{path}: it holds no results of runs, as compare.py and sweep.py write them")


def run_figures(results: dict[str, Any]) -> RunFigures:
    """Reads the main results from the content of a run's `results.json`.

    Raises:
      CakeError: A value is missing or of another type.
    """
    try:
        return _run_figures(results)
    except KeyError as error:
        raise CakeError(f"the results lack {error}") from error
    except (TypeError, AttributeError) as error:
        raise CakeError(f"the results have another form: {error}") from error


def _run_figures(results: dict[str, Any]) -> RunFigures:
    teacher, student, samples = results["teacher"], results["student"], results["samples"]
    queries, baseline = results["queries"].values(), results.get("baseline") or {}
    of_baseline = [Queries(**stage).evaluations for stage in baseline.get("queries", {}).values()]
    return RunFigures(
        method=results["method"],
        seed=results["seed"],
        variant=results["variant"],
        teacher_accuracy=teacher["test_accuracy"],
        teacher_params=teacher["num_params"],
        student_accuracy=student["test_accuracy"],
        student_params=student["num_params"],
        agreement=student["test_agreement"],
        guide_accuracy=results["rounds"][-1]["test_accuracy"] if results.get("rounds") else None,
        grid_agreement=student["grid_agreement"],
        kl=student["test_kl"],
        samples=samples["count"],
        num_steps=samples["num_steps"],
        forward_queries=sum(stage["forward"] for stage in queries),
        gradient_queries=sum(stage["gradient"] for stage in queries),
        teacher_queries=samples["teacher_queries"],
        baseline_accuracy=baseline.get("test_accuracy"),
        baseline_agreement=baseline.get("test_agreement"),
        baseline_evaluations=sum(of_baseline) if baseline else None,
        seconds=results["seconds"],
        logit_gaps=results.get("logit_gaps"),
        starts_agreement=results.get("starts_agreement"),
    )


def summary_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary of a run, as pairs of a name and a value as text. A dash stands for None.

    Args:
      results: The content of `results.json`.
    """
    run = run_figures(results)
    without_data = []
    if run.agreement is None and run.starts_agreement is not None:
        without_data = [
            ("agreement without data", f"{run.starts_agreement:.2%} of procedural images; low if it failed")
        ]
    return [
        ("method, seed", f"{run.method}, {run.seed}"),
        ("teacher test accuracy", _accuracy(run.teacher_accuracy, run.teacher_params)),
        ("student test accuracy", _accuracy(run.student_accuracy, run.student_params)),
        ("student agrees with teacher", _text(run.agreement, "{:.2%}")),
        *without_data,
        *([("student of noise", _text(run.baseline_accuracy, "{:.2%}"))] if run.baseline_evaluations else []),
        ("KL(teacher || student)", _text(run.kl, "{:.4f} nats")),
        ("synthetic samples", f"{run.samples:,} of {run.num_steps} steps"),
        ("teacher queries", f"{run.teacher_queries:,}"),
        ("seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in run.seconds.items())),
        *(("warning", sign) for sign in results.get("warnings", ())),
    ]


def summary(results: dict[str, Any]) -> str:
    """The rows of `summary_rows` as lines of text."""
    return "\n".join(f"{name:<28} {value}" for name, value in summary_rows(results))


def percent(share: float | None) -> float:
    """A share in percent. NaN for None."""
    return math.nan if share is None else 100 * share


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation as text, or the mean alone if there is one value."""
    after = f" ± {deviation(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{after}"


def deviation(values: Sequence[float]) -> float:
    """The standard deviation over seeds. 0 for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. Every row has as many cells as `header`."""
    lines = [" | ".join(cells) for cells in (header, *rows)]
    return "\n".join([f"| {lines[0]} |", "|" + "---|" * len(header), *(f"| {line} |" for line in lines[1:])])


def _accuracy(share: float | None, num_params: int | None) -> str:
    return f"{_text(share, '{:.2%}')}  ({_text(num_params, '{:,}')} parameters)"


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
