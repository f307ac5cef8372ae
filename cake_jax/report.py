"""What a person looks at: figures, the HTML report, the summary table."""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cake_jax.data import Dataset
from cake_jax.evaluation import predict
from cake_jax.files import write_atomically
from cake_jax.metrics import MetricsLog
from cake_jax.samples import SampleStore
from cake_jax.teachers import Teacher
from cake_jax.types import SampleBatch

GRID_LIMIT, GRID_SIZE = 2.0, 200
_COLORS = matplotlib.colormaps["tab10"]


def write(
    workdir: Path,
    results: dict[str, Any],
    log: MetricsLog,
    teacher: Teacher | None,
    student: Teacher | None,
    store: SampleStore,
    dataset: Dataset | None,
) -> None:
    """Draws the figures of a run into `figures/` and writes `report.html`, which needs no network.

    Args:
      workdir: The run's folder.
      results: The content of `results.json`.
      log: The metrics.
      teacher: The teacher, or None.
      student: The student, or None.
      store: The samples; may be empty.
      dataset: Real data to draw beside the samples of a 2-dimensional set, or None.
    """
    figures = {}
    if log.read("teacher") or log.read("student"):
        figures["training"] = training_curves(log)
    if log.read("synthesis"):
        figures["synthesis"] = synthesis_curves(log)
    if results.get("rounds"):
        figures["rounds"] = rounds_curve(results["rounds"], results["student"])
    if store.count and teacher is not None:
        first = store.read(min(store.entries))
        if teacher.spec.is_image:
            figures["samples"] = sample_grid(first, teacher)
        elif teacher.spec.shape == (2,):
            figures["boundaries"] = decision_boundaries(teacher, {"student": (student, store.select())}, dataset)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    write_atomically(workdir / "report.html", _html(workdir, results, list(figures)).encode())


def table(results: dict[str, Any]) -> str:
    """The summary of a run as lines of text."""
    return "\n".join(f"{name:<28} {value}" for name, value in _rows(results))


def training_curves(log: MetricsLog) -> Figure:
    """Loss and accuracy of teacher and student over their epochs; the student's is agreement with the teacher."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for color, stage in enumerate(("teacher", "student")):
        rows = log.read(stage)
        if not rows:
            continue
        epochs = [row["epoch"] for row in rows]
        for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(epochs, [row[name] for row in rows], color=_COLORS(color), label=f"{stage}, training")
            if rows[0][f"validation_{name}"] is not None:
                held_out = [row[f"validation_{name}"] for row in rows]
                axes.plot(epochs, held_out, color=_COLORS(color), linestyle="--", label=f"{stage}, validation")
    loss.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="accuracy on its own labels")
    accuracy.legend(frameon=False)
    return figure


def synthesis_curves(log: MetricsLog) -> Figure:
    """What the method tells of its mini-batches, one curve each; the logit gap's start and end share one."""
    rows = log.read("synthesis")
    batches = [row["step"] for row in rows]
    shown = [name for name in rows[0] if name not in ("step", "stage", "seconds", "logit_gap_start")]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for name, axis in zip(shown, axes, strict=False):
        if name == "logit_gap":
            axis.plot(batches, [row["logit_gap_start"] for row in rows], marker=".", label="start")
        axis.plot(batches, [row[name] for row in rows], marker=".", label="end")
        axis.set(xlabel="mini-batch", ylabel=name.replace("_", " "))
    for name, axis in zip(shown, axes, strict=False):
        if name == "step_size" and rows[0][name] > 0:
            axis.set_yscale("log")
        elif name == "logit_gap":
            axis.set(ylabel="logit gap within a set", ylim=(0, None))
            axis.legend(frameon=False)
        elif name.endswith("accuracy"):
            axis.set_ylim(-0.02, 1.02)
    for axis in axes[len(shown) :]:
        axis.axis("off")
    return figure


def rounds_curve(rounds: list[dict[str, Any]], final: dict[str, Any]) -> Figure:
    """Accuracy on real test data, after the rounds, of the student that a method listens to.

    Args:
      rounds: Of `results.json`.
      final: Its `student`: the one that was trained anew on all samples.
    """
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for color, name in enumerate(("test_accuracy", "test_agreement")):
        if rounds[0][name] is not None:
            label = name.removeprefix("test_")
            axes.plot([r["round"] for r in rounds], [r[name] for r in rounds], marker=".", label=label)
            if final[name] is not None:
                axes.axhline(final[name], color=_COLORS(color), linestyle="--", label=f"{label}, trained anew")
    axes.set(xlabel="rounds", ylabel="share of the test set", ylim=(None, 1.0))
    axes.legend(frameon=False)
    return figure


def sample_grid(samples: SampleBatch, teacher: Teacher, *, columns: int = 10, rows: int = 5) -> Figure:
    """Samples of the first sets, one set a row, each with the teacher's label and its probability.

    Args:
      samples: `[N, H, W, C]` images of at least one set.
      teacher: Gives the pixel units and the class names.
      columns: Samples a row at most.
      rows: Rows at most.
    """
    spec = teacher.spec
    sets = np.unique(samples.set_index)[:rows]
    columns = min(columns, int(np.sum(samples.set_index == sets[0])))
    figure = Figure(figsize=(1.0 * columns, 1.2 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), columns, squeeze=False)
    logits = samples.logits - samples.logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, number in enumerate(sets):
        for column, sample in enumerate(np.flatnonzero(samples.set_index == number)[:columns]):
            image, label = spec.denormalize(samples.x[sample]), int(probabilities[sample].argmax())
            low = image.min() if spec.low is None else spec.low
            high = image.max() if spec.high is None else spec.high
            shown = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
            axes[row, column].imshow(
                shown[..., :3] if spec.shape[-1] >= 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1
            )
            name = spec.class_names[label] if spec.class_names else str(label)
            axes[row, column].set_title(f"{name} {probabilities[sample, label]:.2f}", fontsize=7)
            axes[row, column].axis("off")
    return figure


def decision_boundaries(
    teacher: Teacher,
    students: Mapping[str, tuple[Teacher | None, SampleBatch]],
    dataset: Dataset | None,
    *,
    columns: int = 4,
) -> Figure:
    """Decision regions in [-2, 2]^2, with real data (circles) and samples (triangles), the teacher's first.

    Args:
      teacher: The teacher.
      students: By title, students with the samples that they were trained on. Of a single one, or of samples that
        trained none, the teacher's panel shows the samples too.
      dataset: Real data, or None.
      columns: Panels a row at most.
    """
    own = next(iter(students.values()))[1] if len(students) == 1 else None
    panels = [("teacher", teacher, own)]
    panels += [(title, student, samples) for title, (student, samples) in students.items() if student is not None]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 4.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    points, shape = grid()
    regions = [predict(model, points).argmax(axis=1) for _, model, _ in panels]
    for axis, (title, model, samples), region in zip(axes, panels, regions, strict=False):
        extent = (-GRID_LIMIT, GRID_LIMIT, -GRID_LIMIT, GRID_LIMIT)
        colors = _COLORS(np.arange(10))[:, :3] * 0.45 + 0.55
        axis.imshow(colors[region.reshape(shape) % 10], extent=extent, origin="lower", interpolation="nearest")
        if dataset is not None:
            points_x, points_y = dataset.test_x[:300], dataset.test_y[:300]
            axis.scatter(*points_x.T, c=_COLORS(points_y % 10), s=12, edgecolors="white", linewidths=0.4, label="data")
        if samples is not None:
            x, label = samples.x[:1000], samples.logits[:1000].argmax(axis=1)
            axis.scatter(
                *x.T, c=_COLORS(label % 10), s=14, marker="^", edgecolors="black", linewidths=0.4, label="samples"
            )
        if model is not teacher:
            title += f"\nagrees on {np.mean(region == regions[0]):.1%} of the square"
        axis.set(title=title, xlim=extent[:2], ylim=extent[2:], aspect="equal")
    for axis in axes[len(panels) :]:
        axis.axis("off")
    axes[len(panels) - 1].legend(frameon=True, loc="upper right", fontsize=8)
    return figure


def grid() -> tuple[np.ndarray, tuple[int, int]]:
    """The points of the grid over [-2, 2]^2 that 2-dimensional models are compared on, `[40000, 2]`, and its shape."""
    axis = np.linspace(-GRID_LIMIT, GRID_LIMIT, GRID_SIZE, dtype=np.float32)
    columns, rows = np.meshgrid(axis, axis)
    return np.stack([columns.ravel(), rows.ravel()], axis=-1), (GRID_SIZE, GRID_SIZE)


def grid_agreement(student: Teacher | None, teacher: Teacher | None) -> float | None:
    """Share of the points of `grid` on which both have the same argmax; None for other inputs than 2-D."""
    if student is None or teacher is None or student.spec.shape != (2,):
        return None
    points, _ = grid()
    return float(np.mean(predict(student, points).argmax(axis=1) == predict(teacher, points).argmax(axis=1)))


def _rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    def show(value: float | None, form: str = "{:.2%}") -> str:
        return "-" if value is None else form.format(value)

    teacher, student, seconds = results["teacher"], results["student"], results["seconds"]
    return [
        ("method, seed", f"{results['method']}, {results['seed']}"),
        (
            "teacher test accuracy",
            f"{show(teacher['test_accuracy'])}  ({show(teacher['num_params'], '{:,}')} parameters)",
        ),
        (
            "student test accuracy",
            f"{show(student['test_accuracy'])}  ({show(student['num_params'], '{:,}')} parameters)",
        ),
        ("student agrees with teacher", show(student["test_agreement"])),
        ("KL(teacher || student)", show(student["test_kl"], "{:.4f} nats")),
        ("synthetic samples", f"{results['samples']['count']:,} of {results['samples']['num_steps']} steps"),
        ("teacher queries", f"{results['samples']['teacher_queries']:,}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())),
    ]


def _html(workdir: Path, results: dict[str, Any], figures: list[str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _rows(results)
    )
    images = ""
    for name in figures:
        content = base64.b64encode((workdir / "figures" / f"{name}.png").read_bytes()).decode()
        images += f'<h2>{name.capitalize()}</h2><img alt="{name}" src="data:image/png;base64,{content}">'
    title = html.escape(" ".join(filter(None, (results["config_name"], results["variant"], results["method"]))))
    config = html.escape((workdir / "config.json").read_text())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "img{max-width:100%}th{text-align:left;font-weight:normal;padding-right:2rem;color:#666}"
        "pre{background:#f5f5f5;padding:1rem;overflow:auto}</style>"
        f"<h1>{title}</h1><table>{rows}</table>{images}"
        f"<details><summary>Results</summary><pre>{html.escape(json.dumps(results, indent=1))}</pre></details>"
        f"<details><summary>Config</summary><pre>{config}</pre></details></html>\n"
    )
