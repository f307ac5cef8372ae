"""The waits of a `BlackBox`: after failed requests, and between requests."""

import numpy as np
import pytest
from cake_errors import message_of
from recorded_sources import Recorder, inputs, logits

from cake_jax.black_box import Unanswered


@pytest.mark.parametrize("error", [Unanswered("busy"), ConnectionError("gone"), TimeoutError("late")])
def test_waits_double_up_to_the_longest(box, clock, error):
    source = Recorder(first=[error] * 4)
    teacher = box(source, pixels=False, first_wait=1.0, max_wait=6.0)
    np.testing.assert_array_equal(teacher.predict(inputs(3)), logits(inputs(3)))
    assert source.sizes == [3] * 5
    for waited, least, most in zip(clock.slept, [1, 2, 4, 6], [2, 3, 5, 6], strict=True):
        assert least <= waited <= most
    assert any(waited % 1 for waited in clock.slept)
    assert teacher.queries == 3


def test_call_fails_after_the_last_try_and_the_next_continues(box, clock):
    source = Recorder(first=[Unanswered("busy\nvery busy")] * 3)
    teacher = box(source, tries=3)
    message = message_of(teacher.predict, inputs(3))
    assert "3 tries" in message
    assert "busy" in message
    assert "run again" in message
    assert source.sizes == [3] * 3
    teacher.predict(inputs(3))
    assert teacher.queries == 3


def test_requested_wait_is_kept_up_to_the_longest(box, clock):
    source = Recorder(first=[Unanswered("busy", after=20.0), logits(inputs(3)), Unanswered("busy", after=31.0)])
    teacher = box(source, max_wait=30.0)
    teacher.predict(inputs(3))
    assert clock.slept == [20.0]
    assert "31 s" in message_of(teacher.predict, inputs(3, seed=1))
    assert (clock.slept, source.sizes) == ([20.0], [3] * 3)


def test_other_errors_are_not_repeated(box, clock):
    source = Recorder(first=[KeyError("gone\nfor good")])
    message = message_of(box(source).predict, inputs(3))
    assert "(3, 2)" in message
    assert "gone" in message
    assert source.sizes == [3]


@pytest.mark.parametrize(
    ("limits", "times"),
    [
        ({}, [0, 0, 0]),
        ({"requests_per_second": 0.5}, [0, 2, 4]),
        ({"rows_per_second": 10}, [0, 1, 2]),
        ({"rows_per_second": 12.5}, [0, 0.8, 1.6]),
        ({"rows_per_second": 10, "requests_per_second": 0.1}, [0, 10, 20]),
        ({"rows_per_second": 1000, "requests_per_second": 4}, [0, 0.25, 0.5]),
    ],
)
def test_requests_keep_to_the_rates(box, clock, limits, times):
    sent = []
    teacher = box(lambda x: sent.append(clock.now) or logits(x), pixels=False, **limits)
    np.testing.assert_array_equal(teacher.predict(inputs(25)), logits(inputs(25)))
    np.testing.assert_allclose(sent, np.add(times, 100.0))


@pytest.mark.parametrize(
    ("rate", "count", "sizes", "waits"), [(4.5, 10, [4, 4, 2], [8 / 9] * 2), (0.5, 3, [1, 1, 1], [2, 2])]
)
def test_request_holds_the_inputs_of_one_second(box, clock, rate, count, sizes, waits):
    source = Recorder()
    box(source, rows_per_second=rate).predict(inputs(count))
    assert source.sizes == sizes
    np.testing.assert_allclose(clock.slept, waits)


def test_repetitions_keep_to_the_rate(box, clock):
    source = Recorder(first=[Unanswered("busy")])
    box(source, requests_per_second=0.01, first_wait=1.0).predict(inputs(3))
    assert sum(clock.slept) == pytest.approx(100)
