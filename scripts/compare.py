"""Compares methods with the same teacher, student, recipe and number of samples, over seeds.

    python scripts/compare.py --config=configs/digits.py:few --methods=cake,lake,noise --seeds=0,1,2

A method may stand there several times with settings of its own behind colons: `naive,naive:image_priors=True`. Every
run stands in `<workdir>/<method>-<seed>` and is resumed or reused like any run; the first method's teacher of a
seed serves them all. Prints a table in Markdown, writes the figures of all runs as JSON to `--out`, and draws them to
`--figure`: of 2-dimensional data the first seed's decision regions and samples, of others the students' accuracies.
"""

import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from absl import app, flags, logging
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import cake_jax
from cake_jax import comparison, data, report

_METHODS = flags.DEFINE_list(
    "methods", ["cake", "lake", "noise"], "Methods in the order of the table, each name[:field=value...]."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_CONFIG = flags.DEFINE_string("config", None, "Config file, with a variant after a colon.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the runs; by default runs/compare-<config name>[-<variant>].")
_OUT = flags.DEFINE_string("out", "", "JSON file for the figures of all runs.")
_FIGURE = flags.DEFINE_string("figure", "", "PNG file for the picture.")
_RUN = Path(__file__).with_name("run.py")

T = TypeVar("T")


def main(argv: list[str]) -> None:
    """Runs all pairs of method and seed, one after the other; other arguments go to each run."""
    logging.set_verbosity(logging.ERROR)
    path, _, variant = _CONFIG.value.partition(":")
    workdir = Path(_WORKDIR.value or f"runs/compare-{Path(path).stem}{'-' * bool(variant)}{variant}")
    runs = []
    for seed in _SEEDS.value:
        teacher = _folder(workdir, _METHODS.value[0], seed)
        for title in _METHODS.value:
            method, *fields = title.split(":")
            folder = _folder(workdir, title, seed)
            command = [sys.executable, str(_RUN), f"--config={_CONFIG.value}", f"--workdir={folder}", *argv[1:]]
            command += [f"--config.method={method}", f"--config.seed={seed}"]
            command += [f"--config.methods.{method}.{field}" for field in fields]
            command += [f"--config.teacher.from_run={teacher}"] * (folder != teacher)
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"error: this run failed: {shlex.join(command)}")
            results = json.loads((folder / "results.json").read_text())
            runs.append({"title": title, **results, "logit_gaps": _gaps(folder)})
    print(comparison.table(runs))
    if _OUT.value:
        content = {"command": shlex.join([Path(sys.executable).name, *sys.argv]), "runs": runs}
        Path(_OUT.value).write_text(json.dumps(content, indent=1) + "\n")
    if _FIGURE.value:
        folders = {title: _folder(workdir, title, _SEEDS.value[0]) for title in _METHODS.value}
        _picture(folders, runs).savefig(_FIGURE.value, dpi=110)


def _folder(workdir: Path, title: str, seed: str) -> Path:
    return workdir / f"{title.replace(':', '-')}-{seed}"


def _gaps(folder: Path) -> dict[str, float] | None:
    """Median over the mini-batches of the median logit gap within a set, at the start and at the end."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["stage"] == "synthesis" and "logit_gap" in row]
    if not rows:
        return None
    return {
        end: statistics.median(row[name] for row in rows)
        for end, name in (("start", "logit_gap_start"), ("end", "logit_gap"))
    }


def _picture(folders: dict[str, Path], runs: list[dict]) -> Figure:
    teacher = _load(next(iter(folders.values())) / "teacher", cake_jax.Teacher)
    if teacher.spec.shape != (2,):
        return comparison.accuracies(runs)
    config = ConfigDict(json.loads((next(iter(folders.values())) / "config.json").read_text()))
    dataset = data.load(config.dataset.name, data_dir=config.dataset.data_dir)
    loaded = {title: _load(folder, cake_jax.Run) for title, folder in folders.items()}
    students = {title: (run.student, run.samples.select()) for title, run in loaded.items()}
    return report.decision_boundaries(teacher, students, dataset, columns=3)


def _load(folder: Path, kind: type[T]) -> T:
    loaded = cake_jax.load(folder)
    assert isinstance(loaded, kind)
    return loaded


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
