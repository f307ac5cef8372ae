"""Distils every teacher architecture into every student architecture, and compares the students' accuracies.

    python scripts/matrix.py --config=configs/mnist_matrix.py --out=results/mnist_matrix.json --figure=matrix.png

The config's variant `<teacher>-<student>` is one cell of the matrix. The first run of a row has a student of the
teacher's own architecture. The other runs of the row use its teacher and its samples. Other arguments go to each run.

Each run has the folder `<workdir>/<teacher>-<student>`. The default workdir is `runs/<config name>`. An unfinished run
is resumed, and a finished one is used as it is.

The script prints a table in Markdown after each run, writes all results to `--out`, and draws a heat map to `--figure`.
"""

from pathlib import Path

from cake_jax.cli import many_runs
from cake_jax.report import matrix


def main() -> None:
    """Runs all cells, row by row."""
    models = ("cnn,mlp,resnet4,vit_small", "names in the config's variants")
    flags, others = many_runs.parse(__doc__, {"models": models})
    workdir, names = flags.workdir or Path("runs", Path(flags.config).stem), flags.models
    runs = []
    for teacher in names:
        own = workdir / f"{teacher}-{teacher}"
        for student in sorted(names, key=lambda name: name != teacher):
            cell = f"{teacher}-{student}"
            shared = [f"--config.teacher.from_run={own}", f"--config.synthesis.from_run={own}"]
            arguments = [*(shared if student != teacher else ()), *others]
            runs.append(many_runs.run(f"{flags.config}:{cell}", workdir / cell, arguments))
            print(matrix.table(runs, names), flush=True)
    if flags.out:
        many_runs.write(flags.out, runs)
    if flags.figure:
        matrix.heat_map(runs, names).savefig(flags.figure, dpi=150)


if __name__ == "__main__":
    main()
