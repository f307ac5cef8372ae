"""Every architecture teaches every one: a student's accuracy for each pair, as a table and a heat map.

    python scripts/matrix.py --config=configs/mnist_matrix.py --out=results/mnist_matrix.json --figure=matrix.png

A config's variant `<teacher>-<student>` is a cell. All cells of a row share the teacher and the samples of its first,
in which the teacher teaches its own architecture. Every cell stands in `<workdir>/<teacher>-<student>` and is resumed
or reused like any run.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

_CONFIG = flags.DEFINE_string("config", None, "Config file whose variants are <teacher>-<student>.", required=True)
_MODELS = flags.DEFINE_list("models", ["cnn", "mlp", "resnet4", "vit_small"], "Names in the config's variants.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the runs; by default runs/<config name>.")
_OUT = flags.DEFINE_string("out", "", "JSON file for the figures of all runs.")
_FIGURE = flags.DEFINE_string("figure", "", "PNG file for the heat map.")
_RUN = Path(__file__).with_name("run.py")


def main(argv: list[str]) -> None:
    """Runs all pairs, row by row; other arguments go to each run."""
    workdir, names = Path(_WORKDIR.value or Path("runs", Path(_CONFIG.value).stem)), _MODELS.value
    runs = []
    for teacher in names:
        own = workdir / f"{teacher}-{teacher}"
        for student in [teacher, *(name for name in names if name != teacher)]:
            cell = f"{teacher}-{student}"
            command = [sys.executable, str(_RUN), f"--config={_CONFIG.value}:{cell}", f"--workdir={workdir / cell}"]
            if student != teacher:
                command += [f"--config.teacher.from_run={own}", f"--config.synthesis.from_run={own}"]
            command += argv[1:]
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"error: this run failed: {shlex.join(command)}")
            runs.append(json.loads((workdir / cell / "results.json").read_text()))
            print(_table(runs, names), flush=True)
    if _OUT.value:
        content = {"command": shlex.join([Path(sys.executable).name, *sys.argv]), "runs": runs}
        Path(_OUT.value).write_text(json.dumps(content, indent=1) + "\n")
    if _FIGURE.value:
        _heat_map(runs, names).savefig(_FIGURE.value, dpi=150)


def _accuracies(runs: list[dict], names: list[str]) -> np.ndarray:
    """Students' test accuracies in percent, a row for a teacher; NaN where there is none yet."""
    accuracies = np.full((len(names), len(names)), np.nan)
    for run in runs:
        teacher, student = run["variant"].split("-")[:2]
        accuracies[names.index(teacher), names.index(student)] = 100 * run["student"]["test_accuracy"]
    return accuracies


def _teachers(runs: list[dict]) -> dict[str, float]:
    """Teachers' test accuracies in percent."""
    return {run["variant"].split("-")[0]: 100 * run["teacher"]["test_accuracy"] for run in runs}


def _table(runs: list[dict], names: list[str]) -> str:
    """In Markdown."""
    teachers = _teachers(runs)
    rows = [f"| teacher | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for name, row in zip(names, _accuracies(runs, names), strict=True):
        cells = " | ".join("-" if np.isnan(value) else f"{value:.1f}" for value in row)
        rows.append(f"| {name}, {teachers[name]:.1f} | {cells} |" if name in teachers else f"| {name} | {cells} |")
    return "\n".join(rows)


def _heat_map(runs: list[dict], names: list[str]) -> Figure:
    accuracies, teachers = _accuracies(runs, names), _teachers(runs)
    figure = Figure(figsize=(1.5 + 1.1 * len(names), 1.2 + 0.9 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(accuracies, vmin=min(90.0, np.nanmin(accuracies)), vmax=100.0, cmap="viridis")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), [f"{name}\n{teachers[name]:.1f} %" for name in names])
    axes.set_xlabel("student")
    axes.set_ylabel("teacher, and its accuracy")
    middle = sum(image.get_clim()) / 2
    for (row, column), value in np.ndenumerate(accuracies):
        colour = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    figure.colorbar(image, label="student's test accuracy, %")
    return figure


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
