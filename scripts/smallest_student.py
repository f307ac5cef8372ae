"""Shows how small a student may be, and how few evaluations of the teacher it needs, for a wanted agreement.

    python scripts/sweep.py --config=configs/digits.py --config.student.model.options.width=4,8,16 \
        --config.student.epochs=1,10,100 --config.seed=0,1,2 --out=runs/sizes.json
    python scripts/smallest_student.py runs/sizes.json --figure=sizes.png

The files are those that `scripts/sweep.py` and `scripts/compare.py` write. Runs with the same number of the student's
parameters and of evaluations are taken together, so they should differ in nothing else but seeds. An evaluation is a
forward query of the teacher, and a gradient counts as three. In the figure, each file has its own style of line.

The table has one row for each agreement of `--wanted`, in percent: the smallest student that reaches it in the mean,
and the fewest evaluations with which any student does. The agreement is that on the test set, so the table describes
what is possible. It does not choose a student for you.
"""

import json
import sys
from pathlib import Path

from cake_jax.arguments import Parser
from cake_jax.report import cheapest
from cake_jax.types import CakeError


def main() -> None:
    """Reads the runs, prints the table, and draws the figure."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="JSON files with the results of runs")
    parser.add_argument("--wanted", default="80,90,95,98,99", help="agreements in percent")
    parser.add_argument("--figure", type=Path, help="PNG file for the figure")
    flags = parser.parse_args()
    try:
        wanted = [float(value) for value in flags.wanted.split(",")]
        by_file = {path.stem: json.loads(path.read_text())["runs"] for path in flags.runs}
        options = cheapest.choices([run for runs in by_file.values() for run in runs])
    except (CakeError, OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(cheapest.table(options, wanted))
    if flags.figure:
        families = {name: cheapest.choices(runs) for name, runs in by_file.items()}
        cheapest.curves(families).savefig(flags.figure, dpi=110)


if __name__ == "__main__":
    main()
