"""Shows how small a student may be, and how few evaluations of the teacher it needs, for a wanted agreement.

    python scripts/sweep.py --config=configs/digits.py --config.student.model.options.width=4,8,16 \
        --config.student.epochs=1,10,100 --config.seed=0,1,2 --out=runs/sizes.json
    python scripts/smallest_student.py runs/sizes.json --figure=sizes.png

The files are those that `scripts/sweep.py` and `scripts/compare.py` write. Runs that differ in their seeds alone are
taken together. An evaluation is a forward query of the teacher, and a gradient counts as three. In the figure, each
file has its own style of line, which `NAME=FILE` names, and so has each method in it, if there are several.

The table has one row for each agreement of `--wanted`, in percent: the smallest student that reaches it in the mean,
and the fewest evaluations with which any student does. The agreement is that on the test set, so the table describes
what is possible. It does not choose a student for you.
"""

import sys
from pathlib import Path

from cake_jax.arguments import Parser, output_file
from cake_jax.report import cheapest
from cake_jax.report.tables import read_runs
from cake_jax.types import CakeError


def main() -> None:
    """Reads the runs, prints the table, and draws the figure."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", help="JSON files with the results of runs, each FILE or NAME=FILE")
    parser.add_argument("--wanted", default="80,90,95,98,99", help="agreements in percent")
    parser.add_argument("--figure", type=output_file, help="PNG file for the figure")
    flags = parser.parse_args()
    try:
        wanted = [float(value) for value in flags.wanted.split(",")]
        files: set[str] = set()
        families: dict[str, list[cheapest.Choice]] = {}
        for argument in flags.runs:
            name, _, file = argument.partition("=") if "=" in argument else (Path(argument).stem, "", argument)
            if name in files:
                raise CakeError(f"{argument}: another file has this name; call it NAME={file}")
            files.add(name)
            families |= cheapest.families(name, read_runs(Path(file)))
        options = [one for family in families.values() for one in family]
    except (CakeError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(cheapest.table(options, wanted))
    if flags.figure:
        cheapest.curves(families).savefig(flags.figure, dpi=110)


if __name__ == "__main__":
    main()
