"""Does faults to real runs, and checks that each run goes on to the result of an uninterrupted one.

    python tests/faults --faults=200 --seed=0 --out=results/faults.json

It prints one line for each fault, and writes what happened to `--out`. The same command goes on with an unfinished log.
The exit code is 1 if a fault did damage. `docs/reliability.md` describes the faults.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2]))

import harness
from faults import FAULTS


def main():
    parser = argparse.ArgumentParser("tests/faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="number of faults")
    parser.add_argument("--seed", type=int, default=0, help="seed of all moments and choices")
    parser.add_argument("--only", choices=FAULTS, help="one class of faults")
    parser.add_argument("--kind", choices=harness.KINDS, help="one kind of run")
    parser.add_argument("--out", type=Path, help="the log, in JSON")
    flags = parser.parse_args()
    command = shlex.join(["python", "tests/faults", *sys.argv[1:]])
    records = []
    if flags.out and flags.out.exists():
        log = json.loads(flags.out.read_text())
        if log["seed"] != flags.seed:
            parser.error(f"{flags.out} has the seed {log['seed']}; name another file")
        records = log["faults"]
    names = [flags.only] * flags.faults if flags.only else harness.plan(flags.faults)
    print(f"{flags.faults} faults, seed {flags.seed}", flush=True)
    with harness.Harness() as runs:
        for number in range(len(records), flags.faults):
            record = runs.run(names[number], flags.seed, number, flags.kind)
            records.append(record)
            verdict = record.get("skipped") or ("equal" if record["passed"] else "; ".join(record["complaints"]))
            print(f"{number}: {record['fault']} of {record['run']}: {verdict}", flush=True)
            if flags.out:
                harness.write(flags.out, command, flags.seed, records)
    print(json.dumps(harness.summary(records)))
    return int(any(not record.get("passed", True) for record in records))


if __name__ == "__main__":
    sys.exit(main())
