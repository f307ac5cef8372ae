"""The smallest student, and the fewest evaluations of the teacher, for a wanted agreement: a table and a figure."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.typing import LineStyleType

from cake_jax.report.tables import deviation, markdown, percent, run_figures, spread
from cake_jax.types import CakeError

_LINES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
# The lowest disagreement that the figure shows, in percent, and those at its axis.
_LEAST = 0.05
_TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.1)


class Choice(NamedTuple):
    """The settings of runs that differ in their seeds alone, with the results of the runs.

    Attributes:
      num_params: Number of the student's parameters.
      evaluations: Evaluations of the teacher for samples and student, where a gradient counts as three.
      title: The settings, as the script that made the runs names them.
      agreements: Agreement with the teacher on the test set in each run, in percent.
    """

    num_params: int
    evaluations: int
    title: str
    agreements: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean agreement, in percent."""
        return statistics.mean(self.agreements)


def choices(runs: Sequence[dict[str, Any]]) -> list[Choice]:
    """Groups runs by the size of their student, their evaluations and their title, in this order.

    Args:
      runs: Contents of `results.json` with one more entry, `title`: the settings without the seed.

    Raises:
      CakeError: A run has no title or no student, or its agreement was not measured.
    """
    grouped: dict[tuple[int, int, str], list[float]] = {}
    for results in runs:
        run = run_figures(results)
        title = results.get("title")
        if not isinstance(title, str):
            raise CakeError("a run has no title; compare.py and sweep.py write titles")
        if run.student_params is None or run.agreement is None:
            raise CakeError(f"a run of {run.method} has no agreement of student and teacher")
        grouped.setdefault((run.student_params, run.evaluations, title), []).append(percent(run.agreement))
    return [Choice(*key, tuple(values)) for key, values in sorted(grouped.items())]


def families(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, list[Choice]]:
    """Splits runs by their methods.

    Args:
      name: Name of all runs.
      runs: See `choices`.

    Returns:
      The choices of each method by `<method>, <name>`. If there is one method, its choices by `name`.

    Raises:
      CakeError: As for `choices`.
    """
    methods = sorted({run_figures(results).method for results in runs})
    if len(methods) == 1:
        return {name: choices(runs)}
    return {f"{one}, {name}": choices([run for run in runs if run["method"] == one]) for one in methods}


def smallest(options: Sequence[Choice], wanted: float) -> Choice | None:
    """The smallest student whose mean agreement is at least `wanted` percent. Of equal sizes, the cheapest one."""
    return min((one for one in options if one.mean >= wanted), default=None)


def fewest(options: Sequence[Choice], wanted: float) -> Choice | None:
    """The fewest evaluations with which the mean agreement is at least `wanted` percent. Of equals, the smallest."""
    reached = (one for one in options if one.mean >= wanted)
    return min(reached, key=lambda one: (one.evaluations, one.num_params), default=None)


def table(options: Sequence[Choice], wanted: Sequence[float]) -> str:
    """A table in Markdown with one row for each wanted agreement. A dash stands for an agreement that none reaches.

    Args:
      options: See `choices`.
      wanted: Mean agreements in percent.
    """
    header = ("agreement, at least", "smallest student", "with", "reaches", "fewest evaluations", "student", "reaches")
    rows = []
    for value in wanted:
        small, cheap = smallest(options, value), fewest(options, value)
        row = ["-"] * 6
        if small is not None and cheap is not None:
            row = [
                f"{small.num_params:,} parameters",
                f"{small.evaluations:,} evaluations",
                f"{spread(small.agreements)} %",
                f"{cheap.evaluations:,}",
                f"{cheap.num_params:,} parameters",
                f"{spread(cheap.agreements)} %",
            ]
        rows.append([f"{value:g} %", *row])
    return markdown(header, rows)


def curves(families: Mapping[str, Sequence[Choice]]) -> Figure:
    """Draws the agreement over the evaluations, with standard deviations, one line for each size of the student.

    A color stands for a size, or for a family if all students have the same size. The vertical scale is that of the
    disagreement, 100 % minus the agreement, so that 90, 99 and 99.9 % are equally far apart.

    Args:
      families: By name, choices as from the function `choices`. Each family has a style of line.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({one.num_params for options in families.values() for one in options})
    colored = sizes if len(sizes) > 1 else list(families)
    colors = dict(zip(colored, matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(colored))), strict=True))
    lines = dict(zip(families, itertools.cycle(_LINES), strict=False))
    for name, options in families.items():
        for size in sizes:
            own = [one for one in options if one.num_params == size]
            missing = [max(100 - one.mean, _LEAST) for one in own]
            deviations = [deviation(one.agreements) for one in own]
            better = [min(below, value - _LEAST) for below, value in zip(deviations, missing, strict=True)]
            style: dict[str, Any] = {"fmt": f"o{lines[name]}", "markersize": 4, "capsize": 2}
            style["color"] = colors[size if len(sizes) > 1 else name]
            axes.errorbar([one.evaluations for one in own], missing, [better, deviations], **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(high, low)
    axes.set_yticks([missing for missing in _TICKS if low <= missing <= high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - value:g}"))
    axes.set_xlabel("evaluations of the teacher")
    axes.set_ylabel("agreement with the teacher, %")
    axes.grid(alpha=0.3)
    if len(sizes) > 1:
        title = "student"
        handles = [Line2D([], [], color=colors[size], marker="o", label=f"{size:,} parameters") for size in sizes]
        if len(families) > 1:
            handles += [Line2D([], [], color="black", linestyle=lines[name], label=name) for name in families]
    else:
        title = f"student of {sizes[0]:,} parameters"
        handles = [Line2D([], [], color=colors[name], marker="o", linestyle=lines[name], label=name) for name in lines]
    figure.legend(handles=handles, title=title, frameon=False, loc="outside right upper")
    return figure
