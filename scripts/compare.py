"""Compares methods with the same teacher, student, recipe and number of samples, over seeds.

    python scripts/compare.py --config=configs/digits.py:few --methods=cake,lake,noise --seeds=0,1,2

Every run stands in `<workdir>/<method>-<seed>` and is resumed or reused like any run; the first method's teacher of a
seed serves them all. Prints a table in Markdown, and writes the figures of all runs as JSON to `--out`.
"""

import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags

_METHODS = flags.DEFINE_list("methods", ["cake", "lake", "noise"], "Methods, in the order of the table.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_CONFIG = flags.DEFINE_string("config", None, "Config file, with a variant after a colon.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the runs; by default runs/compare-<config name>[-<variant>].")
_OUT = flags.DEFINE_string("out", "", "JSON file for the figures of all runs.")
_RUN = Path(__file__).with_name("run.py")


def main(argv: list[str]) -> None:
    """Runs all pairs of method and seed, one after the other; other arguments go to each run."""
    path, _, variant = _CONFIG.value.partition(":")
    workdir = Path(_WORKDIR.value or f"runs/compare-{Path(path).stem}{'-' * bool(variant)}{variant}")
    runs = []
    for seed in _SEEDS.value:
        teacher = workdir / f"{_METHODS.value[0]}-{seed}"
        for method in _METHODS.value:
            folder = workdir / f"{method}-{seed}"
            command = [sys.executable, str(_RUN), f"--config={_CONFIG.value}", f"--workdir={folder}", *argv[1:]]
            command += [f"--config.method={method}", f"--config.seed={seed}"]
            command += [f"--config.teacher.from_run={teacher}"] * (folder != teacher)
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"error: this run failed: {shlex.join(command)}")
            runs.append(json.loads((folder / "results.json").read_text()) | {"logit_gaps": _gaps(folder)})
    print(_table(runs))
    if _OUT.value:
        content = {"command": shlex.join([Path(sys.executable).name, *sys.argv]), "runs": runs}
        Path(_OUT.value).write_text(json.dumps(content, indent=1) + "\n")


def _gaps(folder: Path) -> dict[str, float] | None:
    """Median over the mini-batches of the median logit gap within a set, at the start and at the end."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["stage"] == "synthesis"]
    if not rows:
        return None
    return {
        end: statistics.median(row[name] for row in rows)
        for end, name in (("start", "logit_gap_start"), ("end", "logit_gap"))
    }


def _table(runs: list[dict]) -> str:
    rows = [
        "| method | student accuracy | agreement | logit gap, end / start | teacher queries |",
        "|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(run["method"] for run in runs):
        mine = [run for run in runs if run["method"] == method]
        samples, gaps = mine[0]["samples"], [run["logit_gaps"] for run in mine]
        ratio = f"{statistics.mean(g['end'] / g['start'] for g in gaps):.2f}" if all(gaps) else "-"
        rows.append(
            f"| {method} | {_mean(mine, 'test_accuracy')} | {_mean(mine, 'test_agreement')} "
            f"| {ratio} | {samples['teacher_queries']:,} |"
        )
    return "\n".join(rows)


def _mean(runs: list[dict], name: str) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    values = [100 * run["student"][name] for run in runs if run["student"][name] is not None]
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
