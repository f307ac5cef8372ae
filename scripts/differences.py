"""Shows how sure the differences between the rows of a comparison are.

    python scripts/differences.py results/digits_methods_seeds.json --control=cake

The file is one that `scripts/compare.py` or `scripts/sweep.py` has written. Each row of the table is compared with the
control, by default the first row, over the seeds that both have. The differences are in points of test accuracy and of
agreement, and ± is the standard error of the difference. The first standard error takes all runs as independent. The
second takes the two runs of a seed as a pair, as they share their teacher. It is smaller if a good teacher makes the
students of both rows good.

A difference of two standard errors occurs by chance in about one of twenty comparisons. With three seeds the standard
errors themselves are uncertain, and chance makes it one of eight (unpaired) or one of five (paired).
"""

import json
import sys

from cake_jax.arguments import Parser
from cake_jax.report import differences
from cake_jax.types import CakeError


def main() -> None:
    """Reads the runs, and prints the table."""
    parser = Parser(__doc__)
    parser.add_argument("runs", help="JSON file with the results of runs")
    parser.add_argument("--control", default="", help="title of the row that all others are compared with")
    flags = parser.parse_args()
    try:
        with open(flags.runs) as file:
            print(differences.table(json.load(file)["runs"], flags.control))
    except (CakeError, OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {flags.runs}: {error}")


if __name__ == "__main__":
    main()
