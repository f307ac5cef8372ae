"""Several processes of one run: the samples of one process, and a clear end where one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cake_jax import load

ROOT = Path(__file__).parents[2]
SMALL = [
    "--config=configs/two_moons.py:smoke",
    "--config.dataset.max_train_examples=600",
    "--config.teacher.epochs=2",
    "--config.student.epochs=2",
    "--config.synthesis.num_batches=5",
]


def command(*arguments):
    return [sys.executable, str(ROOT / "scripts" / "run.py"), *SMALL, *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=400)


def children(process):
    """Process ids of the launched processes, by their number."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        found |= {int(part.partition("=")[2]): int(pid) for part in line.split("\0") if part.startswith("--process_id")}
    return found


def comparable(folder):
    results = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in results.items() if name not in ("seconds", "environment")}


def test_two_processes_do_what_one_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run("--cpu_devices=2", f"--workdir={one}")
    assert alone.returncode == 0, alone.stderr
    together = run("--processes=2", f"--workdir={two}", f"--config.teacher.from_run={one}")
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("report:") == 1
    ours, theirs = load(one).samples, load(two).samples
    assert list(ours.entries) == list(theirs.entries) == list(range(5))
    for mine, other in zip(ours.select(), theirs.select(), strict=True):
        np.testing.assert_array_equal(mine, other)
    # The student saw the same batches, spread over as many devices: two gradients have one order to be added in.
    assert comparable(one) == comparable(two)
    logged = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in logged if row["stage"] == "student"]
    assert steps == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_in_one_line_and_nothing_is_lost(victim, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    longer = ["--processes=2", "--config.synthesis.num_batches=80"]
    assert run(*longer, f"--workdir={whole}").returncode == 0
    longer += [f"--workdir={killed}"]
    process = subprocess.Popen(command(*longer), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    index = killed / "samples" / "index.jsonl"
    deadline = time.monotonic() + 120
    while not (index.exists() and index.read_text().count("\n") > 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started, processes = index.read_text().splitlines(), children(process)
    os.kill(processes[victim], signal.SIGKILL)
    before = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - before < 60
    assert process.returncode == 1
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert errors == [f"error: process {victim} of 2 was ended by signal 9; the same command goes on from here"]
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())
    assert not (killed / "results.json").exists()
    assert set(started) <= set(index.read_text().splitlines())
    assert run(*longer).returncode == 0
    assert comparable(killed) == comparable(whole)


def test_a_wrong_config_is_told_once(tmp_path):
    process = run("--processes=2", f"--workdir={tmp_path / 'run'}", "--config.synthesis.num_groups=7")
    assert process.returncode == 1
    assert [line for line in process.stderr.splitlines() if line.startswith("error:")] == [
        "error: synthesis.num_groups: 7 groups need as many classes, the data has 2"
    ]
    assert "Traceback" not in process.stderr
