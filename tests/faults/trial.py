"""One run with one fault: how it is started and watched, and what must be true in the end."""

import contextlib
import hashlib
import json
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from filelock import FileLock
from http_server import Memory, Server
from kinds import KINDS, labels

from cake_jax import CakeError, load_run

_POLL_SECONDS = 0.01


class Outcome(NamedTuple):
    """What a run with a fault must reproduce bitwise.

    Attributes:
      results: `results.json` without seconds and environment.
      samples: SHA-256 of the content of each shard, by mini-batch.
      weights: SHA-256 of the weights of teacher and student.
      metrics: The lines of the log without seconds, sorted.
    """

    results: dict[str, Any]
    samples: dict[int, str]
    weights: list[str]
    metrics: list[str]


def outcome_of(folder):
    """The outcome of a finished run."""
    run = load_run(folder)
    results = {name: value for name, value in run.results.items() if name not in ("seconds", "environment")}
    weights = [
        hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model.variables))).hexdigest()
        for model in (run.teacher, run.student)
        if model is not None
    ]
    return Outcome(
        results, checksums(folder), weights, sorted(json.dumps({**row, "seconds": 0}) for row in rows(folder))
    )


def rows(folder):
    """The complete lines of a run's metrics log."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def num_lines(folder):
    """The number of complete lines of a run's metrics log."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def shards(folder):
    """The paths of the shards that the index names, by mini-batch."""
    index = folder / "samples" / "index.jsonl"
    entries = map(json.loads, index.read_text().splitlines()) if index.exists() else ()
    return {entry["batch"]: index.parent / entry["file"] for entry in entries}


def checksums(folder):
    """SHA-256 of the content of each shard that is there, by mini-batch."""
    return {
        batch: hashlib.sha256(path.read_bytes()).hexdigest() for batch, path in shards(folder).items() if path.exists()
    }


def inodes(folder):
    """The number of the file of each shard. A shard that is written again has another."""
    return {batch: path.stat().st_ino for batch, path in shards(folder).items() if path.exists()}


class Answers(NamedTuple):
    """What a ledger holds: the keys of requests that are answered, and the answers by the digests of their rows."""

    keys: frozenset[str]
    of_rows: dict[bytes, bytes]


def answers_in(folder):
    """The answers in a run's ledger. A copy is read, because the reading of a ledger after a kill changes it."""
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.glob("ledger.sqlite*"):
            shutil.copy(path, copy)
        if not (Path(copy) / "ledger.sqlite").exists():
            return Answers(frozenset(), {})
        with contextlib.closing(sqlite3.connect(Path(copy) / "ledger.sqlite")) as ledger:
            if not ledger.execute("SELECT 1 FROM sqlite_schema WHERE name = 'rows'").fetchone():
                return Answers(frozenset(), {})
            query = "SELECT key FROM requests WHERE number NOT IN (SELECT request FROM rows WHERE answer IS NULL)"
            keys = frozenset(key for (key,) in ledger.execute(query))
            answered = dict(ledger.execute("SELECT digest, answer FROM rows WHERE answer IS NOT NULL"))
    return Answers(keys, answered)


class Trial:
    """One run that gets a fault. A context that ends the server and deletes the run's folder.

    Attributes:
      kind: The `Kind` of the run.
      folder: The run's folder.
      rng: Random numbers of this trial.
      server: The server of a black box, or None.
      memory: What the server has received and answered. It outlives the server.
      broken: Name of a function in `breaks.py` with which every process of the trial is broken, or empty.
      complaints: What was not as it must be, one sentence each.
      events: What happened, for the log.
      damaged: The mini-batches whose shards the fault has damaged.
      kept_lines: Lines of the metrics log that the next run must keep.
      named: What the next run must name as damaged, or empty.
    """

    def __init__(self, forks, name, folder, rng, broken=""):
        self.kind, self.folder, self.rng, self.broken = KINDS[name], folder, rng, broken
        self.complaints, self.events, self.damaged = [], [], set()
        self.memory, self.server, self.kept_lines, self.named = Memory(), None, [], ""
        self._forks, self._home, self._processes = forks, folder, []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.kind.is_remote:
            self.serve()
        return self

    def __exit__(self, *error):
        for process in self._processes:
            process.kill()
        self._stack.close()

    def serve(self, port=0):
        """Starts a server with the trial's memory."""
        self.server = self._stack.enter_context(Server(memory=self.memory, answer=labels, port=port))

    def start(self, **options):
        """Starts the run's command, the same every time."""
        arguments = [*self.kind.arguments, f"--workdir={self.folder}"]
        if self.kind.is_remote:
            arguments.append(f"--config.black_box.url={self.server.url}")
        output = self._home.with_name(f"{self._home.name}.{len(self._processes)}.txt")
        self._processes.append(self._forks.start(arguments, output, broken=self.broken, **options))
        return self._processes[-1]

    def wait_for_moment(self, process, least=0):
        """Waits until the log has a random number of lines, and a random part of a second more.

        Args:
          process: The process that works on the run.
          least: Least number of lines.

        Returns:
          Whether the process still works then.
        """
        lines, delay = int(self.rng.integers(least, self.kind.num_lines)), float(self.rng.uniform(0, 0.3))
        deadline = time.monotonic() + 120
        while num_lines(self.folder) < lines and process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        time.sleep(delay)
        self.events.append(f"{lines} lines and {delay:.3f} s")
        return process.poll() is None

    def kill(self, process):
        """Kills all processes of the run, waits until none has the folder any more, and returns the exit code."""
        code = process.kill()
        if self.folder.exists():
            with FileLock(self.folder / "run.lock", timeout=10):
                pass
        return code

    def expect(self, is_true, complaint):
        """Notes a complaint unless something is as it must be."""
        if not is_true:
            self.complaints.append(complaint)

    def expect_failure(self, process):
        """A run that a fault stops ends with one line that names the error; or it got on in spite of the fault."""
        code = process.wait()
        errors = [line for line in process.text.splitlines() if line.startswith("error: ")]
        self.events.append(f"exit code {code}" + (f": {errors[0]}" if errors else ""))
        self.expect(code in (0, 1), f"exit code {code}")
        self.expect(len(errors) == (code == 1), f"{len(errors)} lines of error with exit code {code}")
        self.expect("Traceback" not in process.text, "a traceback")

    def finish(self, reference):
        """Runs the command again and compares its outcome with that of the uninterrupted run.

        Returns:
          The record of the trial: whether the outcome is equal, and how many samples and answers were lost.
        """
        before, files, answers = checksums(self.folder), inodes(self.folder), answers_in(self.folder)
        received = len(self.memory.keys)
        process = self.start()
        code = process.wait()
        self.expect(code == 0, f"the same command again ended with exit code {code}: {process.text[-300:]}")
        text = process.text
        same = code == 0 and self._is_equal(reference)
        after, files_after, answers_after = checksums(self.folder), inodes(self.folder), answers_in(self.folder)
        lost = [batch for batch in set(before) - self.damaged if after.get(batch) != before[batch]]
        again = [batch for batch in set(files) - self.damaged if files_after.get(batch) != files[batch]]
        if not self.kind.is_ordered:
            lost = sorted({*lost, *again})
        lost_answers = [row for row, answer in answers.of_rows.items() if answers_after.of_rows.get(row) != answer]
        asked_again = answers.keys.intersection(self.memory.keys[received:])
        self.expect(all(row in rows(self.folder) for row in self.kept_lines), "work was done again after a stop")
        is_named = any("damaged" in line and self.named in line for line in text.splitlines())
        self.expect(not self.named or is_named, f"no line names the damage of {self.named}")
        self.expect(not lost, f"{len(lost)} mini-batches were lost")
        self.expect(not lost_answers, f"{len(lost_answers)} answers were lost")
        self.expect(not asked_again, f"{len(asked_again)} answered requests were sent again")
        if self.kind.is_remote:
            self.expect(not self.memory.conflicts, "one key came with other rows")
            self.expect(max(self.memory.rows.values(), default=0) <= 1, "a row was charged twice")
            sent = {
                (key, place): int(answer).to_bytes(4, "little")
                for key, answers_of in self.memory.answers.items()
                for place, answer in enumerate(answers_of)
            }
            wrong = sum(answer != sent.get(place) for place, answer in self._kept_answers(answers_after))
            self.expect(not wrong, f"{wrong} answers in the ledger are not those of the server")
        return {
            "equal": same,
            "samples_before": len(before),
            "samples_lost": len(lost),
            "samples_made_again": len(again),
            "answers_before": len(answers.of_rows),
            "answers_lost": len(lost_answers),
            "answers_paid_again": len(asked_again),
            "text": text,
        }

    def _is_equal(self, reference):
        """Whether the finished run has the outcome of the uninterrupted one. Complains if it has not."""
        try:
            parts = zip(Outcome._fields, outcome_of(self.folder), reference, strict=True)
        except CakeError as error:
            self.complaints.append(f"the end cannot be read: {error}")
            return False
        others = [name for name, ours, theirs in parts if ours != theirs]
        self.expect(not others, "not equal: " + ", ".join(others))
        return not others

    def _kept_answers(self, answers):
        """For each answered row of the ledger: its place, which is the request's key and a number, and the answer."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.sqlite")) as ledger:
            query = "SELECT key, digest FROM rows JOIN requests ON request = requests.number ORDER BY rows.number"
            places: dict[str, int] = {}
            for key, digest in ledger.execute(query):
                place = places.setdefault(key, 0)
                places[key] += 1
                if digest in answers.of_rows:
                    yield (key, place), answers.of_rows[digest]
