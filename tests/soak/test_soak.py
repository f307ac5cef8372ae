"""The recording of long runs."""

import argparse
import random
import sys
from pathlib import Path

import pytest
from recording import growth, soak

sys.path.append(str(Path(__file__).parents[1] / "faults"))
from trial import outcome_of


def point(seconds, samples, memory_mb, files=10, threads=20):
    return {"seconds": seconds, "samples": samples, "memory_mb": memory_mb, "files": files, "threads": threads}


def test_growth_leaves_out_the_first_tenth_and_the_student():
    curve = [
        point(0, 0, 100),
        point(1, 90, 200),
        point(2, 100, 300, 11, 21),
        point(4, 300, 310),
        point(8, 900, 320, 12, 22),
        point(9, 1000, 500),
    ]
    assert growth(curve) == {
        "memory_mb": [300, 320],
        "highest_memory_mb": 500,
        "files": [11, 12],
        "threads": [21, 22],
        "samples_per_second": [100, 150],
    }


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_started_again(tmp_path):
    flags = argparse.Namespace(samples=20_000, steps=64, processes=2, every=0.5)
    log = soak(flags, tmp_path / "run", 25.0, random.Random(0))
    assert log["starts"] > 1
    assert log["samples"] == 20_000
    assert max(one["processes"] for one in log["curve"]) == 2
    soak(flags, tmp_path / "whole", 0.0, random.Random(0))
    assert outcome_of(tmp_path / "run") == outcome_of(tmp_path / "whole")
