"""Measures students on the training data that their teacher did not see, so that settings are chosen without test data.

    python scripts/run.py --config=configs/digits.py --config.run.evaluation=False --workdir=runs/a
    python scripts/held_out.py runs/a runs/b --out=held_out.json

Each argument is the folder of a run. Its teacher held out the share `teacher.validation_fraction` of the real training
data. The run that trained the teacher must be there: the run itself, or the one in its `teacher.from_run`. The script
prints a table in Markdown, in the order of the arguments.
"""

import sys
from pathlib import Path
from typing import Any

from cake_jax import data, evaluate, load_run
from cake_jax.arguments import Parser, output_file, write_results
from cake_jax.random_keys import run_keys
from cake_jax.report.tables import markdown, percent
from cake_jax.run import run_folder
from cake_jax.run.fit import held_out
from cake_jax.types import CakeError


def main() -> None:
    """Measures all runs, prints the table, and writes the figures."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument("--out", type=output_file, help="JSON file for the figures")
    flags = parser.parse_args()
    try:
        figures = {folder: measured(Path(folder)) for folder in flags.runs}
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")
    columns = ("teacher_accuracy", "accuracy", "agreement")
    rows = [(folder, *(f"{percent(one[name]):.2f}" for name in columns)) for folder, one in figures.items()]
    print(markdown(("run", "teacher, %", "accuracy, %", "agreement, %"), rows))
    write_results(flags.out, runs=figures)


def measured(folder: Path) -> dict[str, Any]:
    """The figures of `cake_jax.evaluate` for a run on its teacher's held-out data, and the number of examples.

    Raises:
      CakeError: The run is not finished, or no run trained its teacher on real data.
    """
    run = load_run(folder)
    if run.teacher is None or run.student is None:
        raise CakeError(f"{folder}: the run is not finished, or its teacher is not a white box")
    origin = folder
    while earlier := run_folder.saved_config(origin)["teacher"]["from_run"]:
        origin = Path(earlier)
    of_teacher = run_folder.saved_config(origin)
    if of_teacher["teacher"]["weights"]:
        raise CakeError(f"{origin}: its teacher comes from a file, so its training data are not known")
    dataset = data.load(run_folder.saved_data(origin), run.teacher.spec)
    fraction = of_teacher["teacher"]["validation_fraction"]
    rows = held_out(run_keys(of_teacher["seed"]).teacher, fraction, len(dataset.train_x))
    if not len(rows):
        raise CakeError(f"{origin}: its teacher held out no training data; teacher.validation_fraction is {fraction}")
    return {"examples": len(rows), **evaluate(run.student, run.teacher, dataset.train_x[rows], dataset.train_y[rows])}


if __name__ == "__main__":
    main()
