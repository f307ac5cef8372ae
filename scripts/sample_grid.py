"""Draws samples of several runs: a row for each run, and a column for each class.

    python scripts/sample_grid.py digits=runs/digits MNIST=runs/mnist --figure=samples.png

Each argument is the name of a row and the folder of a run whose samples are images. A column has the first sample that
the teacher assigns to the class.
"""

import sys
from pathlib import Path

from cake_jax import load_run
from cake_jax.arguments import Parser, output_file
from cake_jax.report.figures.samples import class_grid
from cake_jax.types import CakeError, DataSpec, SampleBatch


def main() -> None:
    """Reads the samples and draws the figure."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER of each row")
    parser.add_argument("--figure", type=output_file, required=True, help="PNG file for the figure")
    flags = parser.parse_args()
    try:
        rows = {}
        for run in flags.runs:
            name, _, folder = run.partition("=")
            if not folder or name in rows:
                raise CakeError(f"{run}: it must be NAME=FOLDER, with another name for each row")
            rows[name] = _samples(Path(folder))
        class_grid(rows).savefig(flags.figure, dpi=110)
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")


def _samples(folder: Path) -> tuple[SampleBatch, DataSpec]:
    """The samples of a run, and their specification.

    Raises:
      CakeError: The folder holds no run with images and a teacher.
    """
    run = load_run(folder)
    if not run.samples.count or run.teacher is None or not run.teacher.spec.is_image:
        raise CakeError(f"{folder}: the run has no samples that are images, or no teacher")
    return run.samples.select(), run.teacher.spec


if __name__ == "__main__":
    main()
