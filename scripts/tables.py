"""Fills the tables of README.md and some pages of docs/ with the raw results in results/.

    python scripts/tables.py            # rewrites the tables
    python scripts/tables.py --check    # changes nothing, and fails if a table differs from the raw results

A comment before a table names its file of raw results, and for each row the runs that the row is about:

    <!-- rows: results/digits_methods.json
    CAKE = cake
    naive, with image priors = naive:image_priors=True
    two moons = cake of results/two_moons.json
    -->

Another comment is for a table of one figure. It names the runs of each column, with {row} for the text in the row's
first cell:

    <!-- cells: agreement, %
    CAKE = name={row}, method=cake of results/toys_few.json
    -->

A run is named by its title in `scripts/compare.py`, or by its method and variant if it has no title (`ideal:lenet5`).
Cells under a heading of `HEADINGS` are computed. So are those under `over the control`: the agreement minus that of the
first row with the same seed, in points. All other cells are kept as they are.
"""

import math
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cake_jax.arguments import Parser
from cake_jax.report.comparison import COLUMNS
from cake_jax.report.tables import RunFigures, markdown, percent, read_runs, run_figures, spread
from cake_jax.types import CakeError

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md", "docs/ablation.md", "docs/small_students.md", "docs/troubleshooting.md")
_TABLE = re.compile(
    r"<!-- (?P<kind>rows|cells): (?P<what>.*\S) *\n(?P<names>(?:(?!-->).*\n)+)-->\n\n(?P<table>(?:\|.*\n)+)"
)


def _spread(form: str) -> Callable[[list[float]], str]:
    """A function of values for `spread` with this format."""
    return lambda values: spread(values, form)


def _whole(values: list[float]) -> str:
    return f"{round(statistics.mean(values)):,}"


def _short(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}"


def _short_percent(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} %"


# By heading: a run's value, and the text for the values of all runs of a row.
HEADINGS: dict[str, tuple[Callable[[RunFigures], float], Callable[[list[float]], str]]] = {
    **{
        heading: (COLUMNS[heading], _spread(".2f"))
        for heading in (
            *("accuracy, %", "agreement, %", "guide student, %"),
            *("on the grid, %", "on starts, %", "logit gap, end / start"),
        )
    },
    **{heading: (COLUMNS[heading], _whole) for heading in ("samples", "forward queries", "gradient queries")},
    "evaluations": (lambda run: run.evaluations, _whole),
    "seeds": (lambda run: run.seed, lambda values: f"{len(values)}"),
    "seconds": (COLUMNS["seconds"], _short),
    "teacher, %": (lambda run: percent(run.teacher_accuracy), _spread(".2f")),
    "steps": (lambda run: run.num_steps, _whole),
    "teacher": (lambda run: percent(run.teacher_accuracy), _short_percent),
    "student": (lambda run: percent(run.student_accuracy), _short_percent),
    "agreement": (lambda run: percent(run.agreement), _short_percent),
}


def main() -> None:
    """Fills the tables of all pages, or compares them with the raw results."""
    parser = Parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if a table differs")
    check, wrong = parser.parse_args().check, []
    for page in PAGES:
        before = (ROOT / page).read_text()
        try:
            after = filled(before, ROOT)
        except (CakeError, OSError) as error:
            sys.exit(f"error: {page}: {error}")
        if after != before:
            wrong.append(page)
            if not check:
                (ROOT / page).write_text(after)
    if check and wrong:
        sys.exit(f"error: tables differ from the raw results in {', '.join(wrong)}; run python scripts/tables.py")


def filled(page: str, root: Path) -> str:
    """The page with computed cells.

    Args:
      page: A text in Markdown.
      root: The folder to which names of files are relative.

    Raises:
      SystemExit: A row or column has no runs in the comment or in its file.
    """
    return _TABLE.sub(lambda found: _filled(found, root), page)


def _filled(found: re.Match[str], root: Path) -> str:
    names = dict(line.strip().rsplit(" = ", 1) for line in found["names"].splitlines())
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found["table"].splitlines()]
    fill = {"rows": _fill_rows, "cells": _fill_cells}[found["kind"]]
    fill(header, rows, names, root, found["what"])
    return found[0][: found.start("table") - found.start()] + markdown(header, rows) + "\n"


def _fill_cells(header: list[str], rows: list[list[str]], names: dict[str, str], root: Path, heading: str) -> None:
    """Computes all cells but the first of each row, with the figure of `heading`."""
    if heading not in HEADINGS:
        sys.exit(f"error: there is no figure '{heading}'; there are {', '.join(HEADINGS)}")
    for row in rows:
        for place, column in enumerate(header[1:], start=1):
            if column not in names:
                sys.exit(f"error: the comment before the table names no runs of the column '{column}'")
            title, _, file = names[column].replace("{row}", row[0]).partition(" of ")
            if not file:
                sys.exit(f"error: the comment before the table names no file of the column '{column}'")
            row[place] = _cell(heading, _runs(root / file, title))


def _fill_rows(header: list[str], rows: list[list[str]], names: dict[str, str], root: Path, default_file: str) -> None:
    """Computes the cells under known headings."""
    control: dict[int, float] = {}
    for row in rows:
        if row[0] not in names:
            sys.exit(f"error: the comment before the table names no runs of the row '{row[0]}'")
        title, _, file = names[row[0]].partition(" of ")
        runs = _runs(root / (file or default_file), title)
        agreements = {run.seed: percent(run.agreement) for run in runs}
        control = control or agreements
        for place, heading in enumerate(header):
            if heading in HEADINGS:
                row[place] = _cell(heading, runs)
            elif heading == "over the control":
                if not set(agreements) <= set(control):
                    sys.exit(f"error: the first row lacks a seed of the row '{row[0]}'")
                gains = [value - control[seed] for seed, value in agreements.items()]
                row[place] = "-" if any(map(math.isnan, gains)) else spread(gains, "+.2f")


def _cell(heading: str, runs: list[RunFigures]) -> str:
    """The text of a figure for the runs that have it. A dash if none has."""
    value_of, text = HEADINGS[heading]
    values = [value for value in map(value_of, runs) if not math.isnan(value)]
    return text(values) if values else "-"


def _runs(path: Path, title: str) -> list[RunFigures]:
    runs = [run for run in read_runs(path) if _title(run) == title]
    if not runs:
        sys.exit(f"error: {path} has no run '{title}'")
    return [run_figures(run) for run in runs]


def _title(run: dict[str, Any]) -> str:
    return run.get("title") or ":".join(filter(None, (run["method"], run["variant"])))


if __name__ == "__main__":
    main()
