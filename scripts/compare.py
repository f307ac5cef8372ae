"""Compares methods with the same teacher, student, settings and number of samples, over seeds.

    python scripts/compare.py --config=configs/digits.py:few --methods=cake,lake,noise --seeds=0,1,2

A method may occur several times with other settings, which follow colons: `naive,naive:image_priors=True`. A setting
with a dot is any field of the config, so `cake,cake:synthesis.num_steps=0` compares CAKE with its starts. All runs of a
seed share the teacher of the first method. Other arguments go to each run.

Each run has the folder `<workdir>/<method>-<seed>`. The default workdir is `runs/compare-<config name>[-<variant>]`. An
unfinished run is resumed, and a finished one is used as it is. A failed run is named at the end, after all others.

Runs follow one another. `--devices=0,1,2` runs one at a time on each of these GPUs, as in CUDA_VISIBLE_DEVICES.

The column *guide student* has the students of `adversarial`, `dfme` and `ideal` that learn while the samples are made.
All other columns are about students that learn from the finished samples, in the same way for all methods.

The column *on starts* needs no real data: the agreement of student and teacher on procedural images, which are the same
for all runs. It shows a failed student, but does not order good ones as their accuracy does. Below the table is the
rank correlation of both agreements over all runs.

The script prints a table in Markdown, writes all results to `--out`, and draws a figure to `--figure`. The figure shows
the decision regions of the first seed for 2-dimensional inputs, else the students' accuracies.
"""

from typing import Any

from cake_jax.cli import grid, many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.evaluation import starts_agreement
from cake_jax.report import Record, comparison
from cake_jax.report.tables import run_figures
from cake_jax.types import CakeError


def main() -> None:
    """Runs all pairs of a method and a seed: the first method, whose teachers the others share, before the others."""
    parser = many_runs.parser(__doc__)
    methods = "methods in the order of the table, each name[:field=value...]"
    parser.add_argument("--methods", default="cake,lake,noise", type=grid.split, help=methods)
    parser.add_argument("--seeds", default="0,1,2", type=grid.split, help="seeds")
    flags, others = many_runs.known_flags(parser)
    workdir = flags.workdir or many_runs.default_folder("compare", flags.config)
    pairs = [(title, seed) for seed in flags.seeds for title in flags.methods]
    folders = {(title, seed): workdir / f"{title.replace(':', '-')}-{seed}" for title, seed in pairs}

    def job(title: str, seed: str) -> Job:
        method, *fields = title.split(":")
        arguments = [*others, f"--config.method={method}", f"--config.seed={seed}"]
        arguments += [
            f"--config.{field}" if "." in field.partition("=")[0] else f"--config.methods.{method}.{field}"
            for field in fields
        ]
        if title != flags.methods[0]:
            arguments.append(f"--config.teacher.from_run={folders[flags.methods[0], seed]}")
        return Job(flags.config, folders[title, seed], arguments)

    results: dict[tuple[str, str], dict[str, Any] | str] = {}
    for turn in (flags.methods[:1], flags.methods[1:]):
        # A run whose teacher was not made is left out.
        failed = {seed for (_, seed), one in results.items() if isinstance(one, str)}
        jobs = {pair: job(*pair) for pair in pairs if pair[0] in turn and pair[1] not in failed}
        results |= zip(jobs, many_runs.run_all(list(jobs.values()), flags.devices), strict=True)
    runs: list[dict[str, Any]] = []
    first: dict[str, Record] = {}
    for title, seed in pairs:
        one = results.get((title, seed))
        if isinstance(one, dict):
            try:
                record = many_runs.record(folders[title, seed])
            except CakeError as error:
                results[title, seed] = f"error: {error}"
                continue
            first.setdefault(title, record)
            figures = {
                "logit_gaps": comparison.logit_gaps(record.log),
                "starts_agreement": starts_agreement(record.student, record.teacher),
            }
            runs.append({"title": title, **one, **figures})
    if runs:
        print(comparison.table(runs))
        for one in runs:
            for sign in one.get("warnings", ()):
                print(f"warning: {one['title']}, seed {one['seed']}: {sign}")
        figures_of = list(map(run_figures, runs))
        correlation = comparison.rank_correlation([(one.starts_agreement, one.agreement) for one in figures_of])
        if correlation is not None:
            print(f"rank correlation of the agreements on starts and on the test set: {correlation:.2f}")
        if flags.out:
            many_runs.write(flags.out, runs)
        if flags.figure:
            comparison.figure(runs, first).savefig(flags.figure, dpi=110)
    many_runs.end(results.values())


if __name__ == "__main__":
    main()
