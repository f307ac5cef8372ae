"""When a stage saves its state."""

import time

import pytest

from cake_jax.run.saves import Saves


@pytest.mark.parametrize(("took", "apart"), [(0.01, 2.0), (0.1, 2.0), (1.0, 20.0)])
def test_slow_saves_take_a_twentieth_of_the_time(took, apart, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    saves = Saves()
    now[0] += 2.01
    assert saves.are_due()
    with saves:
        now[0] += took
    now[0] += apart - 0.01
    assert not saves.are_due()
    now[0] += 0.02
    assert saves.are_due()
