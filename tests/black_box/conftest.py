"""Fixtures of the tests of black boxes."""

import contextlib

import pytest
from recorded_sources import SPEC, Clock

from cake_jax.black_box import BlackBox, QuerySettings, black_box


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(black_box, "time", clock)
    return clock


@pytest.fixture
def box():
    """Makes black boxes of `SPEC`, and closes them after the test."""
    with contextlib.ExitStack() as stack:

        def make(source, ledger=None, spec=SPEC, answers="logits", budget=1000, max_rows=10, **options):
            settings = QuerySettings(answers, budget, max_rows=max_rows, **options)
            return stack.enter_context(contextlib.closing(BlackBox(source, spec, settings, ledger)))

        yield make
