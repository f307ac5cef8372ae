"""Systems without the calls of Linux: no binding of processes to CPU cores, and no `fcntl`."""

import json
import os
import subprocess
import sys

from cake_jax import parallel

# Takes away what macOS or Windows lack, then runs the command line.
ELSEWHERE = """
import os, sys
del os.sched_getaffinity, os.sched_setaffinity
os.process_cpu_count = os.cpu_count  # Python 3.13 defines it so where the calls above are missing
sys.modules["fcntl"] = None
from cake_jax.cli import main
main()
"""


def test_a_run_needs_no_call_that_only_linux_has(tmp_path):
    arguments = ["--config=configs/digits.py:smoke", f"--workdir={tmp_path}", "--config.log.csv=True"]
    ended = subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "results.json").read_text())["student"]["test_accuracy"] > 0.1
    assert (tmp_path / "metrics-teacher.csv").exists()


def test_usable_cores_are_those_of_the_process_or_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 1}, raising=False)
    assert parallel.usable_cores() == [1, 3]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert parallel.usable_cores() == [0, 1, 2]
