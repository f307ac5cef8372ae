"""Many runs with a fault each: their plan, their order, and the log of what happened."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from faults import FAULTS, NotPossibleError
from forking import Forks
from kinds import KINDS
from trial import Trial, outcome_of

# How often each kind gets a fault that suits them all. Two processes take the longest.
_WEIGHTS = {"cake": 0.4, "rounds": 0.25, "black box": 0.25, "two processes": 0.1}


class Harness:
    """Runs faults one after another. A context that owns the folder of the runs and the process that forks them.

    Attributes:
      folder: Folder of the runs. It has the uninterrupted ones, which are made when they are first needed.
    """

    def __init__(self, kinds=tuple(KINDS), broken=""):
        """Prepares the runs.

        Args:
          kinds: Names in `KINDS`.
          broken: Name of a function in `breaks.py` with which the runs that get a fault are broken.
        """
        self._kinds, self._broken = kinds, broken
        self._references = {}

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cake_jax-faults-"))
        cache = {
            "XDG_CACHE_HOME": self.folder / "cache",
            "JAX_COMPILATION_CACHE_DIR": self.folder / "cache" / "compiled",
        }
        kept = {name: os.environ.get(name) or str(value) for name, value in cache.items()}
        self._forks = Forks({**kept, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"})
        self._forks.__enter__()
        return self

    def __exit__(self, *error):
        self._forks.__exit__(*error)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, fault, seed, number, kind=None):
        """Runs one fault.

        Args:
          fault: Name of the fault in `FAULTS`.
          seed: Seed of all faults.
          number: Number of this fault. It decides all draws, together with the seed.
          kind: Name of the kind of run. None draws one.

        Returns:
          The record of what happened, JSON-ready.
        """
        rng = np.random.default_rng([seed, number])
        weights = np.array([_WEIGHTS[name] for name in self._kinds])
        drawn = str(rng.choice(self._kinds, p=weights / weights.sum()))
        kind = kind or ("black box" if fault.startswith("server") else drawn)
        reference, started = self._reference(kind), time.perf_counter()
        record = {"number": number, "seed": seed, "fault": fault, "run": kind}
        with Trial(self._forks, kind, self.folder / f"run-{number}", rng, self._broken) as trial:
            try:
                FAULTS[fault](trial)
            except NotPossibleError as error:
                return {**record, "skipped": str(error)}
            end = trial.finish(reference)
            text = end.pop("text")
            record |= {"moment": trial.events[:1], "events": trial.events, **end, "complaints": trial.complaints}
            record |= {"passed": not trial.complaints, "seconds": round(time.perf_counter() - started, 2)}
            if trial.complaints:
                record["text"] = text[-2000:]
        self._clean(number)
        return record

    def _reference(self, kind):
        """The outcome of an uninterrupted run."""
        if kind not in self._references:
            with Trial(self._forks, kind, self.folder / f"reference {kind}", np.random.default_rng(0)) as trial:
                process = trial.start()
                if process.wait() != 0:
                    raise RuntimeError(f"the run without a fault failed: {process.text}")
                self._references[kind] = outcome_of(trial.folder)
                num_lines = len(self._references[kind].metrics)
                assert num_lines == trial.kind.num_lines, f"the log has {num_lines} lines"
        return self._references[kind]

    def _clean(self, number):
        for path in self.folder.glob(f"run-{number}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def plan(count):
    """The names of `count` faults, each class as often as every other."""
    names = list(FAULTS)
    return [names[number % len(names)] for number in range(count)]


def summary(records):
    """The numbers of a log of faults."""
    done = [record for record in records if "skipped" not in record]
    return {
        "faults": len(done),
        "skipped": len(records) - len(done),
        "passed": sum(record["passed"] for record in done),
        "equal": sum(record["equal"] for record in done),
        "samples_lost": sum(record["samples_lost"] for record in done),
        "answers_lost": sum(record["answers_lost"] for record in done),
        "answers_paid_again": sum(record["answers_paid_again"] for record in done),
        "seconds": round(sum(record["seconds"] for record in done), 1),
    }


def write(path, command, seed, records):
    """Writes the log of all faults so far."""
    content = {"command": command, "seed": seed, "summary": summary(records), "faults": records}
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
