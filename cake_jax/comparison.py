"""Runs of several methods beside each other: a table and a picture."""

import statistics
from collections.abc import Callable

from matplotlib.figure import Figure

# Heading of a column, and its value in a run's results.
COLUMNS: dict[str, Callable[[dict], float | None]] = {
    "accuracy, %": lambda run: _percent(run["student"]["test_accuracy"]),
    "agreement, %": lambda run: _percent(run["student"]["test_agreement"]),
    "on the grid, %": lambda run: _percent(run["student"]["grid_agreement"]),
    "logit gap, end / start": lambda run: run["logit_gaps"] and run["logit_gaps"]["end"] / run["logit_gaps"]["start"],
    "samples": lambda run: run["samples"]["count"],
    "forward queries": lambda run: run["queries"]["synthesis"]["forward"],
    "gradient queries": lambda run: run["queries"]["synthesis"]["gradient"],
    "seconds": lambda run: run["seconds"]["synthesis"] + run["seconds"]["student"],
}


def table(runs: list[dict]) -> str:
    """In Markdown: a row a title, mean and standard deviation over its runs; columns of which nothing is known go.

    Args:
      runs: Contents of `results.json`, each with two entries besides: `title`, the method as the reader knows it, and
        `logit_gaps`, `start` and `end`, or None.
    """
    columns = {name: of for name, of in COLUMNS.items() if any(of(run) is not None for run in runs)}
    rows = [f"| method | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for title in dict.fromkeys(run["title"] for run in runs):
        values = [[of(run) for run in runs if run["title"] == title] for of in columns.values()]
        rows.append(f"| {title} | {' | '.join(map(_mean, values))} |")
    return "\n".join(rows)


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if all(isinstance(value, int) for value in known):
        return f"{round(statistics.mean(known)):,}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known) if len(known) > 1 else 0:.2f}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def accuracies(runs: list[dict]) -> Figure:
    """A line a title: each run's student, their mean, and the teachers' mean."""
    titles = list(dict.fromkeys(run["title"] for run in runs))
    figure = Figure(figsize=(6.4, 1.0 + 0.38 * len(titles)), layout="constrained")
    axes = figure.subplots()
    for place, title in enumerate(titles):
        values = [100 * run["student"]["test_accuracy"] for run in runs if run["title"] == title]
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="tab:blue")
        axes.plot(statistics.mean(values), place, "|", markersize=18, markeredgewidth=2, color="tab:blue")
    teachers = statistics.mean(100 * run["teacher"]["test_accuracy"] for run in runs)
    axes.axvline(teachers, linestyle="--", color="tab:gray", label="teacher")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlabel("student's test accuracy, %; a dot a seed, a bar their mean")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    return figure
