"""Several processes of one run: they make what one process makes, and end together if one of them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import runs

from cake_jax import load_run

SMALL = [
    "--config=configs/two_moons.py:smoke",
    "--config.dataset.max_train_examples=600",
    "--config.teacher.epochs=2",
    "--config.student.epochs=2",
    "--config.synthesis.num_batches=5",
]
# As many devices as the one process of the tests has: the sum of two gradients has one order only.
TWO_PROCESSES = [*SMALL, "--processes=2", "--cpu_devices=1"]


def children(process):
    """Process ids of the processes that were launched, by their number."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        found |= {int(part.partition("=")[2]): int(pid) for part in line.split("\0") if part.startswith("--process_id")}
    return found


def test_two_processes_make_what_one_makes(tmp_path, capfd):
    one, two = tmp_path / "one", tmp_path / "two"
    assert runs.command(*SMALL, f"--workdir={one}").code == 0
    capfd.readouterr()
    assert runs.command(*TWO_PROCESSES, f"--workdir={two}", f"--config.teacher.from_run={one}").code == 0
    assert capfd.readouterr().out.count("report:") == 1
    ours, theirs = load_run(one).samples, load_run(two).samples
    assert list(ours.entries) == list(theirs.entries) == list(range(5))
    for mine, other in zip(ours.select(), theirs.select(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert runs.results_of(one) == runs.results_of(two)
    assert [row["step"] for row in runs.metrics_of(two, "student")] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_in_one_line_and_loses_nothing(victim, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    longer = ["--config.synthesis.num_batches=80"]
    assert runs.command(*SMALL, *longer, f"--workdir={whole}").code == 0
    line = [sys.executable, "scripts/run.py", *TWO_PROCESSES, *longer, f"--workdir={killed}"]
    process = subprocess.Popen(line, cwd=runs.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    index = killed / "samples" / "index.jsonl"
    deadline = time.monotonic() + 120
    while not (index.exists() and index.read_text().count("\n") > 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    entries, processes = index.read_text().splitlines(), children(process)
    os.kill(processes[victim], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    (error,) = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert error.startswith(f"error: process {victim} of 2 was ended by signal 9; ")
    assert "Traceback" not in stderr
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())
    assert not (killed / "results.json").exists()
    assert set(entries) <= set(index.read_text().splitlines())
    assert runs.command(*TWO_PROCESSES, *longer, f"--workdir={killed}").code == 0
    assert runs.results_of(killed) == runs.results_of(whole)


def test_an_error_of_all_processes_is_printed_once(tmp_path, capfd):
    ended = runs.command(*TWO_PROCESSES, f"--workdir={tmp_path / 'run'}", "--config.synthesis.num_steps=-7")
    assert ended.code == 1
    stderr = capfd.readouterr().err + ended.err
    assert [line for line in stderr.splitlines() if line.startswith("error:")] == [
        "error: synthesis.num_steps: -7 is below 0"
    ]
    assert "Traceback" not in stderr
