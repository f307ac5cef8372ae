"""Distils every teacher architecture into every student architecture, and compares the students' accuracies.

    python scripts/matrix.py --config=configs/mnist_matrix.py --out=results/mnist_matrix.json --figure=matrix.png

The config's variant `<teacher>-<student>` is one cell of the matrix. The cells whose student has the teacher's own
architecture are run first. The other cells of a row use the teacher and the samples of that cell. `--seeds=0,1,2` runs
all cells with each seed. Other arguments go to each run. `--devices=0,1,2` runs one cell at a time on each of these
GPUs, as in CUDA_VISIBLE_DEVICES.

Each run has the folder `<workdir>/<teacher>-<student>-<seed>`. The default workdir is `runs/<config name>`. An
unfinished run is resumed, and a finished one is used as it is.

The script prints a table in Markdown after each run, with means and standard deviations over the seeds. It writes all
results to `--out`, and draws a heat map to `--figure` and a bar chart to `--bars`.
"""

from typing import Any

from cake_jax.arguments import output_file
from cake_jax.cli import grid, many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.report import matrix


def main() -> None:
    """Runs all cells: first the diagonal, whose teachers and samples the other cells of a row share."""
    parser = many_runs.parser(__doc__)
    models = "names in the config's variants"
    parser.add_argument("--models", default="cnn,mlp,resnet4,vit_small", type=grid.split, help=models)
    parser.add_argument("--seeds", default="0", type=grid.split, help="seeds")
    parser.add_argument("--bars", type=output_file, help="PNG file for the bar chart")
    flags, others = many_runs.known_flags(parser)
    workdir, names = flags.workdir or many_runs.default_folder("", flags.config), flags.models

    def job(teacher: str, student: str, seed: str) -> Job:
        own, cell = workdir / f"{teacher}-{teacher}-{seed}", f"{teacher}-{student}"
        shared = [f"--config.teacher.from_run={own}", f"--config.synthesis.from_run={own}"]
        arguments = [*others, f"--config.seed={seed}", *(shared if student != teacher else ())]
        return Job(f"{flags.config}:{cell}", workdir / f"{cell}-{seed}", arguments)

    results: list[dict[str, Any] | str] = []
    runs: list[dict[str, Any]] = []

    def run_all(jobs: list[Job]) -> None:
        for one in many_runs.run_all(jobs, flags.devices):
            results.append(one)
            if isinstance(one, dict):
                runs.append(one)
                print(matrix.table(runs, names), flush=True)

    rows = [(name, seed) for seed in flags.seeds for name in names]
    run_all([job(name, name, seed) for name, seed in rows])
    # A row without teacher and samples is left out.
    made = [row for row, one in zip(rows, results, strict=True) if isinstance(one, dict)]
    run_all([job(teacher, student, seed) for teacher, seed in made for student in names if student != teacher])
    if runs and flags.out:
        many_runs.write(flags.out, runs)
    for path, draw in ((flags.figure, matrix.heat_map), (flags.bars, matrix.bars)):
        if runs and path:
            draw(runs, names).savefig(path, dpi=150)
    many_runs.end(results)


if __name__ == "__main__":
    main()
