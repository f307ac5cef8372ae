"""Differences between the rows of a comparison, with their standard errors."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from cake_jax.report.comparison import COLUMNS
from cake_jax.report.tables import RunFigures, markdown, run_figures
from cake_jax.types import CakeError

# Columns of `comparison.COLUMNS`, without their unit.
FIGURES = ("accuracy", "agreement", "on the grid")


class Difference(NamedTuple):
    """The mean of a row minus the mean of its control, over the same seeds.

    Attributes:
      mean: The difference of the means.
      error: Its standard error if the runs of a row are independent. NaN for a single seed.
      paired_error: Its standard error if the two runs of a seed are a pair, as they share their teacher: the standard
        error of the mean of the differences. NaN for a single seed.
    """

    mean: float
    error: float
    paired_error: float


def difference(values: Sequence[float], control: Sequence[float]) -> Difference:
    """The difference of two rows.

    Args:
      values: The value of a row for each seed.
      control: The value of the control for each of these seeds, in the same order.
    """
    gains = [value - base for value, base in zip(values, control, strict=True)]
    if len(gains) == 1:
        return Difference(gains[0], math.nan, math.nan)
    error = math.sqrt((statistics.variance(values) + statistics.variance(control)) / len(gains))
    return Difference(statistics.mean(gains), error, math.sqrt(statistics.variance(gains) / len(gains)))


def table(runs: list[dict[str, Any]], control: str = "") -> str:
    """A table in Markdown of all rows against the control, in points of the figures in `FIGURES`.

    A dash stands for a figure that a run of the row or of the control lacks, and for the errors of a single seed.

    Args:
      runs: The runs of files that `scripts/compare.py` or `scripts/sweep.py` has written.
      control: Title of the control. The default is the title of the first run.

    Raises:
      CakeError: There are no runs, a run has no title, the control is no title, a title has two runs of one seed, or a
        row has no seed of the control.
    """
    rows: dict[str, dict[int, RunFigures]] = {}
    for run in runs:
        figures, title = run_figures(run), run.get("title")
        if not isinstance(title, str):
            raise CakeError("a run has no title; compare.py and sweep.py write titles")
        if figures.seed in rows.setdefault(title, {}):
            raise CakeError(f"{title} has two runs of seed {figures.seed}")
        rows[title][figures.seed] = figures
    control = control or next(iter(rows), "")
    if control not in rows:
        raise CakeError(f"no run has the title '{control}'; there are {', '.join(rows) or 'none'}")
    base = rows.pop(control)
    seeds = {title: sorted(row.keys() & base.keys()) for title, row in rows.items()}
    for title, common in seeds.items():
        if not common:
            raise CakeError(f"{title}: the row and its control have no seed in common")
    columns = [("seeds", *(f"{len(common)}" for common in seeds.values()))]
    for name in FIGURES:
        value_of = COLUMNS[f"{name}, %"]
        found = [
            difference([value_of(row[seed]) for seed in seeds[title]], [value_of(base[seed]) for seed in seeds[title]])
            for title, row in rows.items()
        ]
        if any(not math.isnan(one.mean) for one in found):
            columns.append((f"{name}, points", *(_text(one.mean, "+.2f") for one in found)))
            columns.append((f"{name} ±", *(_text(one.error, ".2f") for one in found)))
            columns.append((f"{name} ±, paired", *(_text(one.paired_error, ".2f") for one in found)))
    header, *lines = zip((f"minus {control}", *rows), *columns, strict=True)
    return markdown(header, lines)


def _text(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"
