"""Differences between the rows of a comparison, with their standard errors."""

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from cake_jax.report.tables import markdown, percent, run_figures
from cake_jax.types import CakeError


class Difference(NamedTuple):
    """The mean of a row minus the mean of its control, over the seeds that both have.

    Attributes:
      mean: The difference of the means.
      error: Its standard error if the runs of a row are independent. NaN for a single seed.
      paired_error: Its standard error if the two runs of a seed are a pair, as they share their teacher: the standard
        error of the mean of the differences. NaN for a single seed.
    """

    mean: float
    error: float
    paired_error: float


def difference(values: Mapping[int, float], control: Mapping[int, float]) -> Difference:
    """The difference of two rows.

    Args:
      values: The values of a row by seed.
      control: The values of the control by seed.

    Raises:
      CakeError: No seed is in both.
    """
    seeds = sorted(values.keys() & control.keys())
    if not seeds:
        raise CakeError("the row and its control have no seed in common")
    own, other = [values[seed] for seed in seeds], [control[seed] for seed in seeds]
    gains = [value - base for value, base in zip(own, other, strict=True)]
    if len(seeds) == 1:
        return Difference(gains[0], math.nan, math.nan)
    error = math.sqrt((statistics.variance(own) + statistics.variance(other)) / len(seeds))
    return Difference(statistics.mean(gains), error, math.sqrt(statistics.variance(gains) / len(seeds)))


def table(runs: list[dict[str, Any]], control: str = "") -> str:
    """A table in Markdown of all rows against the control, in points of accuracy and of agreement.

    Args:
      runs: The runs of a file that `scripts/compare.py` or `scripts/sweep.py` has written.
      control: Title of the control. The default is the title of the first run.

    Raises:
      CakeError: There are no runs, a run has no title, the control is no title, or a title has two runs of one seed.
    """
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for run in runs:
        figures, title = run_figures(run), run.get("title")
        if not isinstance(title, str):
            raise CakeError("a run has no title; compare.py and sweep.py write titles")
        if figures.seed in rows.setdefault(title, {}):
            raise CakeError(f"{title} has two runs of seed {figures.seed}")
        rows[title][figures.seed] = percent(figures.student_accuracy), percent(figures.agreement)
    control = control or next(iter(rows), "")
    if control not in rows:
        raise CakeError(f"no run has the title '{control}'; there are {', '.join(rows) or 'none'}")
    lines = []
    for title, row in rows.items():
        if title != control:
            cells = [title, f"{len(row.keys() & rows[control].keys())}"]
            for place in range(2):
                found = difference(*({seed: pair[place] for seed, pair in one.items()} for one in (row, rows[control])))
                cells += [_text(found.mean, "+.2f"), _text(found.error, ".2f"), _text(found.paired_error, ".2f")]
            lines.append(cells)
    headings = [f"{name}{end}" for name in ("accuracy", "agreement") for end in (", points", " ±", " ±, paired")]
    return markdown([f"minus {control}", "seeds", *headings], lines)


def _text(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"
