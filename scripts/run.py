"""Trains a teacher, makes samples from the teacher alone, trains a student on the samples, and writes a report.

    python scripts/run.py --config=configs/digits.py
    python scripts/run.py --config=configs/digits.py:smoke --workdir=/tmp/digits --config.synthesis.num_steps=32

`--help` lists the flags. `--print_config` lists the fields of a config. The same command resumes a stopped run.
"""

from cake_jax.cli import main

if __name__ == "__main__":
    main()
