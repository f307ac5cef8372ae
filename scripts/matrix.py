"""Distils every teacher architecture into every student architecture, and compares the students' accuracies.

    python scripts/matrix.py --config=configs/mnist_matrix.py --out=results/mnist_matrix.json --figure=matrix.png

The config's variant `<teacher>-<student>` is one cell of the matrix. The cells whose student has the teacher's own
architecture are run first. The other cells of a row use the teacher and the samples of that cell. Other arguments go to
each run. `--devices=0,1,2` runs one cell at a time on each of these GPUs, as in CUDA_VISIBLE_DEVICES.

Each run has the folder `<workdir>/<teacher>-<student>`. The default workdir is `runs/<config name>`. An unfinished run
is resumed, and a finished one is used as it is.

The script prints a table in Markdown after each run, writes all results to `--out`, and draws a heat map to `--figure`.
"""

from typing import Any

from cake_jax.cli import many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.report import matrix


def main() -> None:
    """Runs all cells: first the diagonal, whose teachers and samples the other cells of a row share."""
    models = ("cnn,mlp,resnet4,vit_small", "names in the config's variants")
    flags, others = many_runs.parse(__doc__, {"models": models})
    workdir, names = flags.workdir or many_runs.default_folder("", flags.config), flags.models

    def job(teacher: str, student: str) -> Job:
        own, cell = workdir / f"{teacher}-{teacher}", f"{teacher}-{student}"
        shared = [f"--config.teacher.from_run={own}", f"--config.synthesis.from_run={own}"]
        return Job(f"{flags.config}:{cell}", workdir / cell, [*(shared if student != teacher else ()), *others])

    results: list[dict[str, Any] | str] = []
    runs: list[dict[str, Any]] = []

    def run_all(jobs: list[Job]) -> None:
        for one in many_runs.run_all(jobs, flags.devices):
            results.append(one)
            if isinstance(one, dict):
                runs.append(one)
                print(matrix.table(runs, names), flush=True)

    run_all([job(name, name) for name in names])
    # A row without teacher and samples is left out.
    rows = [name for name, one in zip(names, results, strict=True) if isinstance(one, dict)]
    run_all([job(teacher, student) for teacher in rows for student in names if student != teacher])
    if runs and flags.out:
        many_runs.write(flags.out, runs)
    if runs and flags.figure:
        matrix.heat_map(runs, names).savefig(flags.figure, dpi=150)
    many_runs.end(results)


if __name__ == "__main__":
    main()
