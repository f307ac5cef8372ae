"""Trains a teacher, makes samples from it alone, trains a student on them, and reports.

    python scripts/run.py --config=configs/digits.py
    python scripts/run.py --config=configs/digits.py:smoke --workdir=/tmp/digits --config.synthesis.num_steps=32

`--help` lists the flags, `--print_config` the fields of a config. A stopped run goes on with the same command.
"""

from cake_jax.cli import main

if __name__ == "__main__":
    main()
