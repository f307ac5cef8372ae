"""Sets finished runs side by side: their results, and the settings in which they differ.

    python scripts/report.py runs/digits runs/another --out=comparison.html

The script prints two tables in Markdown with a column for each run. `--out` is an HTML page with the tables and the
figures of the runs, which needs no other file.
"""

import sys
from pathlib import Path

from cake_jax.arguments import Parser, output_file
from cake_jax.cli import many_runs
from cake_jax.report import side_by_side
from cake_jax.types import CakeError


def main() -> None:
    """Prints the results of the runs and the settings in which they differ, and writes the page."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=output_file, help="HTML file for the page")
    flags = parser.parse_args()
    try:
        runs = many_runs.finished(flags.folders)
        print(side_by_side.text(runs))
        if flags.out:
            side_by_side.write(flags.out, runs)
            print(f"\npage: {flags.out}")
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
