"""Runs a long synthesis and its student, and records memory, open files and threads of all its processes.

    python tests/soak --samples=1000000 --out=results/soak.json --figure=docs/images/soak.png
    python tests/soak --samples=200000 --steps=128 --processes=4 --kill_every=60 \
        --out=results/soak_kills.json

With `--kill_every`, one process that a seed picks is killed after so many seconds of each start, and the command is
started again when the others have ended. Then the end is compared with that of a run that nobody has killed.

It needs the packages of the extra `test`.
"""

import argparse
import json
import random
import shlex
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "faults"))
sys.path.append(str(Path(__file__).parents[2]))

from recording import draw, soak
from trial import outcome_of


def main():
    """Runs the soak, prints its figures, and writes the log."""
    parser = argparse.ArgumentParser("tests/soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000, help="number of samples")
    parser.add_argument("--steps", type=int, default=32, help="number of steps of a sample")
    parser.add_argument("--processes", type=int, default=1, help="number of processes")
    parser.add_argument("--kill_every", type=float, default=0.0, help="seconds after which a process is killed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of the process that is killed")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two measurements")
    parser.add_argument("--out", type=Path, help="the log, in JSON")
    parser.add_argument("--figure", type=Path, help="the curves, as a PNG file")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cake_jax-soak-") as home:
        folder, rng = Path(home) / "run", random.Random(flags.seed)
        log = soak(flags, folder, flags.kill_every, rng)
        if flags.kill_every:
            whole = soak(flags, Path(home) / "whole", 0.0, rng)
            log["equal"] = outcome_of(folder) == outcome_of(Path(home) / "whole")
            log["seconds_without_kills"] = whole["seconds"]
    log = {"command": shlex.join(["python", "tests/soak", *sys.argv[1:]]), **log}
    print(json.dumps({name: value for name, value in log.items() if name != "curve"}))
    if flags.out:
        flags.out.write_text(json.dumps(log) + "\n")
    if flags.figure:
        draw(log["curve"], flags.figure)
    return int(not log.get("equal", True))


if __name__ == "__main__":
    sys.exit(main())
