"""Shows how sure the differences between the rows of a comparison are.

    python scripts/differences.py results/digits_methods_seeds.json --control=cake

The files are those that `scripts/compare.py` and `scripts/sweep.py` write. Each row of the table is compared with the
control, over the seeds that both have. `--control` is the title of a row, by default the first. `--only=TEXT` keeps the
rows whose titles contain the text:

    python scripts/differences.py results/toys_few.json results/toys_few_decay.json --only=name=circles, \
        "--control=name=circles, method=noise"

The differences are in points of test accuracy, of agreement, and of agreement on the grid. ± is the standard error of
the difference. The first standard error takes all runs as independent. The second takes the two runs of a seed as a
pair, as they share their teacher. The second is smaller if a teacher affects the students of both rows alike.

Chance alone makes a difference of two standard errors in one of twenty comparisons. The standard errors of few seeds
are uncertain, so chance does so more often: unpaired and paired, in one of 8 and 5 comparisons of three seeds, and in
one of 12 and 9 comparisons of five.
"""

import sys
from pathlib import Path

from cake_jax.arguments import Parser
from cake_jax.report import differences
from cake_jax.report.tables import read_runs
from cake_jax.types import CakeError


def main() -> None:
    """Reads the runs, and prints the table."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="JSON files with the results of runs")
    parser.add_argument("--control", default="", help="title of the row that all others are compared with")
    parser.add_argument("--only", default="", help="text in the titles of the rows")
    flags = parser.parse_args()
    try:
        runs = [run for path in flags.runs for run in read_runs(path)]
        print(differences.table([run for run in runs if flags.only in str(run.get("title") or "")], flags.control))
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
