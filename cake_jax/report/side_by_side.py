"""Finished runs side by side: a table of their results, the settings in which they differ, and a page."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cake_jax.files import leads_outside, read, write_atomically
from cake_jax.report.comparison import COLUMNS
from cake_jax.report.figures import FIGURES
from cake_jax.report.page import TEMPLATES, in_base64
from cake_jax.report.tables import RunFigures, markdown, percent, run_figures
from cake_jax.types import CakeError


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
      name: A name that tells the run from others.
      folder: The run's folder.
      settings: The values of all config fields by their dotted names.
      results: The content of `results.json`.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    results: dict[str, Any]


def _number(value: int | None) -> float:
    return math.nan if value is None else value


# Headings of the rows, and functions that return a run's value, as in `COLUMNS`.
_ROWS: dict[str, Callable[[RunFigures], float]] = {
    "teacher's accuracy, %": lambda run: percent(run.teacher_accuracy),
    **{heading: value for heading, value in COLUMNS.items() if heading != "seconds"},
    "teacher's parameters": lambda run: _number(run.teacher_params),
    "student's parameters": lambda run: _number(run.student_params),
    "seconds, samples": lambda run: run.seconds["synthesis"],
    "seconds, student": lambda run: run.seconds["student"],
}


def results_table(runs: Sequence[FinishedRun]) -> list[tuple[str, list[str]]]:
    """The results: for each row of `_ROWS` with a value, its heading and the runs' values as text."""
    figures = [run_figures(run.results) for run in runs]
    rows = [(heading, [value(one) for one in figures]) for heading, value in _ROWS.items()]
    return [(heading, list(map(_text, values))) for heading, values in rows if not all(map(math.isnan, values))]


def differing_settings(runs: Sequence[FinishedRun]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs: each field's name and its values as text.

    Settings of methods that no run uses are left out. A dash stands for a field that a run lacks.
    """
    used = {run.results["method"] for run in runs}
    names = {name for run in runs for name in run.settings}
    names -= {name for name in names if name.startswith("methods.") and name.split(".")[1] not in used}
    rows = [(name, [_setting(run, name) for run in runs]) for name in sorted(names)]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def text(runs: Sequence[FinishedRun]) -> str:
    """Results and differing settings of runs as two tables in Markdown, with a column for each run."""
    names = [run.name for run in runs]
    tables = results_table(runs), differing_settings(runs)
    return "\n\n".join(markdown(["", *names], [[name, *values] for name, values in rows]) for rows in tables if rows)


def write(path: Path, runs: Sequence[FinishedRun]) -> None:
    """Writes an HTML page that embeds the tables and the runs' figures."""
    figures = [(name, _pictures(name, runs)) for name in FIGURES]
    page = TEMPLATES.get_template("side_by_side.html").render(
        title=" and ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs side by side",
        width=90,
        names=[run.name for run in runs],
        rows=results_table(runs),
        warnings=[f"{run.name}: {sign}" for run in runs for sign in run.results.get("warnings", ())],
        settings=differing_settings(runs),
        figures=[(name, pictures) for name, pictures in figures if pictures],
    )
    write_atomically(path, page.encode())


def _pictures(name: str, runs: Sequence[FinishedRun]) -> list[tuple[str, str]]:
    """The names of the runs that have a figure, and its PNG file in base64."""
    paths = [(run, run.folder / "figures" / f"{name}.png") for run in runs]
    return [(run.name, in_base64(_picture(run, path))) for run, path in paths if path.exists()]


def _picture(run: FinishedRun, path: Path) -> bytes:
    """The content of a figure. A link could bring any file of this machine into the page."""
    if leads_outside(path, run.folder):
        raise CakeError(f"{path}: leads out of {run.folder}; delete the link")
    return read(path)


def _text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _setting(run: FinishedRun, name: str) -> str:
    return json.dumps(run.settings[name]) if name in run.settings else "-"
