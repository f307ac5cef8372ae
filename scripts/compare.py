"""Compares methods with the same teacher, student, settings and number of samples, over seeds.

    python scripts/compare.py --config=configs/digits.py:few --methods=cake,lake,noise --seeds=0,1,2

A method may occur several times with other settings, which follow colons: `naive,naive:image_priors=True`. A setting
with a dot is any field of the config, so `cake,cake:synthesis.num_steps=0` compares CAKE with its starts. All runs of a
seed share the teacher of the first method. Other arguments go to each run.

Each run has the folder `<workdir>/<method>-<seed>`. The default workdir is `runs/compare-<config name>[-<variant>]`. An
unfinished run is resumed, and a finished one is used as it is.

The column *on starts* needs no real data: the agreement of student and teacher on procedural images, which are the same
for all runs. It shows a failed student, but does not order good ones as their accuracy does. Below the table is the
rank correlation of both agreements over all runs.

The script prints a table in Markdown, writes all results to `--out`, and draws a figure to `--figure`. The figure shows
the decision regions of the first seed for 2-dimensional inputs, else the students' accuracies.
"""

from pathlib import Path
from typing import Any

from cake_jax.cli import many_runs
from cake_jax.report import Record, comparison


def main() -> None:
    """Runs all pairs of a method and a seed, one after the other."""
    methods = ("cake,lake,noise", "methods in the order of the table, each name[:field=value...]")
    flags, others = many_runs.parse(__doc__, {"methods": methods, "seeds": ("0,1,2", "seeds")})
    path, _, variant = flags.config.partition(":")
    workdir = flags.workdir or Path("runs", "-".join(filter(None, ("compare", Path(path).stem, variant))))
    folders = {(t, seed): workdir / f"{t.replace(':', '-')}-{seed}" for seed in flags.seeds for t in flags.methods}
    runs: list[dict[str, Any]] = []
    first: dict[str, Record] = {}
    for (title, seed), folder in folders.items():
        method, *fields = title.split(":")
        arguments = [*others, f"--config.method={method}", f"--config.seed={seed}"]
        arguments += [
            f"--config.{field}" if "." in field.partition("=")[0] else f"--config.methods.{method}.{field}"
            for field in fields
        ]
        if title != flags.methods[0]:
            arguments.append(f"--config.teacher.from_run={folders[flags.methods[0], seed]}")
        results = many_runs.run(flags.config, folder, arguments)
        record = many_runs.record(folder)
        first.setdefault(title, record)
        runs.append({"title": title, **results, "logit_gaps": comparison.logit_gaps(record.log)})
    print(comparison.table(runs))
    for one in runs:
        for sign in one.get("warnings", ()):
            print(f"warning: {one['title']}, seed {one['seed']}: {sign}")
    correlation = comparison.rank_correlation(runs)
    if correlation is not None:
        print(f"rank correlation of the agreements on starts and on the test set: {correlation:.2f}")
    if flags.out:
        many_runs.write(flags.out, runs)
    if flags.figure:
        comparison.figure(runs, first).savefig(flags.figure, dpi=110)


if __name__ == "__main__":
    main()
