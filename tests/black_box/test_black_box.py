"""A `BlackBox`: its requests, its budget, and the conversion of answers to logits."""

import contextlib
import dataclasses
import json
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import teachers
from cake_jax.black_box import BlackBox, Ledger, QuerySettings, Unanswered, black_box
from cake_jax.black_box.answer_kinds import checked_answers
from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 3, mean=(0.5, 0.25), std=(0.5, 0.25), low=0.0, high=1.0)


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(count, 2)).astype(np.float32)


def logits(x):
    return np.concatenate([x, x[:, :1] * x[:, 1:]], axis=1)


class Recorder:
    """A source that records its requests. The items of `first` are raised or returned in place of the first answers."""

    def __init__(self, answer=logits, first=()):
        self.answer, self.first, self.batches = answer, list(first), []

    def __call__(self, x):
        self.batches.append(x)
        if not self.first:
            return self.answer(x)
        answer = self.first.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]

    @property
    def rows(self):
        return np.concatenate(self.batches)


class Clock:
    """Replaces the module `time`. A sleep only advances the clock."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


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


def test_logits_are_returned_unchanged(box):
    teacher, x = box(logits, pixels=False), inputs(25)
    np.testing.assert_array_equal(teacher.predict(x), logits(x))
    np.testing.assert_array_equal(teacher(x), logits(x))
    assert teacher.predict(x).dtype == np.float32
    assert (teacher.spec, teacher.answers, teacher.num_params, teacher.queries) == (SPEC, "logits", None, 25)


@pytest.mark.parametrize(("answers", "access"), [("labels", "labels"), ("scores", "scores"), ("logits", "scores")])
def test_access_follows_the_answers(box, answers, access):
    assert box(logits, answers=answers).access == access


def test_softmax_of_labels_is_one_hot(box):
    labels = np.array([2, 0, 1, 2])
    answer = jax.nn.softmax(box(lambda x: labels.tolist(), answers="labels").predict(inputs(4)))
    np.testing.assert_array_equal(answer, np.eye(3)[labels])


def test_rounded_scores_are_accepted_within_their_rounding():
    """Nine of 0.104 and one of 0.064 are rounded to 0.10 and 0.06, whose sum is 0.96."""
    scores = np.array([[0.104] * 9 + [0.064]])
    np.testing.assert_allclose(checked_answers(scores.round(2), "scores", 1, 10), scores.round(2))
    assert "0.96" in message_of(checked_answers, 0.96 * scores, "scores", 1, 10)
    assert "0.9" in message_of(checked_answers, np.full((1, 10), 0.09), "scores", 1, 10)


def test_softmax_of_scores_is_the_scores(box):
    scores = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 1e-20, 0.8]], np.float32)
    answer = box(lambda x: scores, answers="scores").predict(inputs(3))
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(jax.nn.softmax(answer), scores, rtol=1e-5, atol=1e-37)
    assert answer[2, 1] == pytest.approx(np.log(1e-20))


def test_source_gets_clipped_pixels(box):
    source, x = Recorder(), inputs(5)
    x[0] = 9, -9
    box(source).predict(x)
    np.testing.assert_array_equal(source.rows, SPEC.denormalize(x))
    assert source.rows[0].tolist() == [1, 0]


def test_source_gets_normalised_inputs_without_pixels(box):
    source, x = Recorder(), inputs(5)
    box(source, pixels=False).predict(x)
    np.testing.assert_array_equal(source.rows, x)


def test_answered_input_is_not_queried_again(box):
    source, x = Recorder(), inputs(20)
    teacher = box(source, pixels=False)
    teacher.predict(x[:8])
    mixed = np.concatenate([x[5:], x[:7], x[5:6]])
    np.testing.assert_array_equal(teacher.predict(mixed), logits(mixed))
    np.testing.assert_array_equal(source.rows, x)
    assert teacher.queries == 20


def test_repeated_input_is_queried_once(box):
    source, x = Recorder(), inputs(4)[[0, 1, 1, 2, 0, 3]]
    teacher = box(source, pixels=False)
    np.testing.assert_array_equal(teacher.predict(x), logits(x))
    np.testing.assert_array_equal(source.rows, inputs(4))
    assert teacher.queries == 4


def test_requests_are_split_by_position(box):
    source, x = Recorder(), inputs(35)
    teacher = box(source)
    teacher.predict(x[:15])
    assert source.sizes == [10, 5]
    teacher.predict(x)
    assert source.sizes == [10, 5, 5, 10, 5]


def test_restart_queries_nothing_again(box, tmp_path):
    x = inputs(25)
    first = box(logits, tmp_path / "ledger", pixels=False)
    answers = first.predict(x)
    first.close()

    def unasked(x):
        pytest.fail("the source is asked again")

    teacher = box(unasked, tmp_path / "ledger", pixels=False)
    np.testing.assert_array_equal(teacher.predict(x[::-1]), answers[::-1])
    assert teacher.queries == 25


@pytest.mark.parametrize("answers", ["labels", "scores"])
def test_no_inputs_give_no_logits(box, answers):
    source = Recorder()
    assert box(source, answers=answers).predict(inputs(0)).shape == (0, 3)
    assert source.batches == []


@pytest.mark.parametrize(
    ("x", "part"),
    [
        (np.zeros((4, 3)), "(3,), not (2,)"),
        (np.zeros(2), "(), not (2,)"),
        (np.full((4, 2), np.nan), "finite"),
        (np.full((1, 2), np.inf), "finite"),
    ],
)
def test_invalid_inputs_are_refused(box, x, part):
    source = Recorder()
    teacher = box(source)
    assert part in message_of(teacher.predict, x)
    assert (source.batches, teacher.queries) == ([], 0)


@pytest.mark.parametrize("transform", [jax.jit, lambda call: jax.grad(lambda x: call(x).sum()), jax.vmap])
@pytest.mark.parametrize("call", [BlackBox.predict, BlackBox.__call__])
def test_tracing_is_refused(box, transform, call):
    source = Recorder()
    teacher = box(source)
    message = message_of(transform(lambda x: call(teacher, x)), inputs(3))
    assert "gives no gradient" in message
    assert "use a method" in message
    assert source.batches == []


def test_budget_is_not_exceeded(box, tmp_path):
    source, x = Recorder(), inputs(30)
    teacher = box(source, tmp_path / "ledger", budget=20)
    message = message_of(teacher.predict, x[:21])
    assert "21 more queries" in message
    assert "budget of 20" in message
    assert "0 are spent" in message
    assert (source.batches, teacher.queries) == ([], 0)
    teacher.predict(x[:12])
    teacher.predict(x[4:20])
    assert (sum(source.sizes), teacher.queries) == (20, 20)
    teacher.predict(x[:20])
    assert "20 are spent" in message_of(teacher.predict, x[19:21])
    assert (sum(source.sizes), teacher.queries) == (20, 20)


def test_budget_counts_earlier_runs(box, tmp_path):
    source, x = Recorder(), inputs(30)
    first = box(source, tmp_path / "ledger", budget=20)
    first.predict(x[:20])
    first.close()
    again = box(source, tmp_path / "ledger", budget=20)
    assert "20 are spent" in message_of(again.predict, x[20:21])
    assert sum(source.sizes) == 20
    again.close()
    box(source, tmp_path / "ledger", budget=21).predict(x[:21])
    assert sum(source.sizes) == 21


def test_query_is_charged_once_before_it_is_sent(box, tmp_path):
    x = inputs(20)
    source = Recorder(first=[logits(x[:10]), KeyboardInterrupt()])
    teacher = box(source, tmp_path / "ledger", budget=20, pixels=False)
    with pytest.raises(KeyboardInterrupt):
        teacher.predict(x)
    assert teacher.queries == 20
    assert "1 more" in message_of(teacher.predict, inputs(1, seed=1))
    teacher.close()
    source = Recorder()
    again = box(source, tmp_path / "ledger", budget=20, pixels=False)
    np.testing.assert_array_equal(again.predict(x), logits(x))
    np.testing.assert_array_equal(source.rows, x[10:])
    assert again.queries == 20


def test_failed_request_is_repeated_unchanged_for_one_of_its_inputs(box, tmp_path):
    x = inputs(30)
    teacher = box(Recorder(first=[ValueError("no")]), tmp_path / "ledger")
    message_of(teacher.predict, x[:10])
    teacher.close()
    source = Recorder()
    again = box(source, tmp_path / "ledger", max_rows=4)
    again.predict(x[20:22])
    assert source.sizes == [2]
    again.predict(x[8:13])
    assert source.sizes == [2, 10, 2, 1]
    np.testing.assert_array_equal(source.batches[1], SPEC.denormalize(x[:10]))
    assert again.queries == 15


def test_failed_request_is_not_repeated_for_other_inputs(box, tmp_path):
    x = inputs(4)
    teacher = box(Recorder(first=[ValueError("no")] * 2), tmp_path / "ledger", pixels=False)
    for rows in (x[:2], x[2:]):
        message_of(teacher.predict, rows)
    teacher.close()
    source = Recorder()
    again = box(source, tmp_path / "ledger", pixels=False)
    again.predict(x[3:])
    np.testing.assert_array_equal(source.rows, x[2:])
    again.predict(x)
    np.testing.assert_array_equal(source.rows, x[[2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("answers", "answer", "parts"),
    [
        ("labels", [0, 1, 3], ("label 3", "0 to 2")),
        ("labels", [0, -1, 1], ("label -1",)),
        ("labels", np.array([0, 2**32, 1]), ("label 4294967296",)),
        ("labels", [0, 1], ("(2,)", "(3,)")),
        ("labels", [[0], [1], [2]], ("(3, 1)",)),
        ("labels", [0.0, 1.0, 2.0], ("float64", "integers")),
        ("labels", ["0", "1", "2"], ("<U1",)),
        ("labels", [True, False, True], ("bool",)),
        ("labels", None, ("()",)),
        ("scores", np.full((3, 3), 0.2), ("0.6", "set answers to logits")),
        ("scores", np.full((3, 3), 0.3001), ("0.9", "set answers to logits")),
        ("scores", [[0.5, 0.6, -0.1]] * 3, ("-0.1", "set answers to logits")),
        ("scores", [[0.5, 0.5, float("nan")]] * 3, ("not finite",)),
        ("scores", np.full((3, 4), 0.25), ("(3, 4)", "(3, 3)")),
        ("scores", [[0.5, 0.5]] * 2 + [[1.0]], ("array",)),
        ("logits", np.full((3, 3), np.inf), ("not finite",)),
        ("logits", np.full((3, 3), 1e300), ("not finite",)),
        ("logits", np.zeros((2, 3)), ("(2, 3)",)),
        ("logits", np.zeros((4, 3)), ("(4, 3)",)),
        ("logits", np.zeros((3, 3), complex), ("complex", "real numbers")),
        ("logits", np.full((3, 3), None), ("object",)),
    ],
)
def test_invalid_answers_are_refused_and_not_kept(box, answers, answer, parts):
    source = Recorder((lambda x: [0, 1, 2]) if answers == "labels" else lambda x: np.eye(3), first=[answer])
    teacher, x = box(source, answers=answers), inputs(3)
    message = message_of(teacher.predict, x)
    for part in parts:
        assert part in message
    np.testing.assert_array_equal(teacher.predict(x).argmax(-1), [0, 1, 2])
    assert teacher.queries == 3


@pytest.mark.parametrize(
    "answer",
    [np.full((3, 3), 0.2), [[0.5, 0.5]] * 2 + [[1.0]], {"scores": 1, "other": {2}}],
    ids=["sum", "ragged", "dict"],
)
def test_refused_answers_are_kept_beside_the_ledger(box, answer, tmp_path):
    path, x = tmp_path / "ledger.sqlite", inputs(3)
    teacher = box(Recorder(lambda x: np.eye(3), first=[answer, answer]), path, answers="scores")
    for _ in range(2):
        assert message_of(teacher.predict, x).endswith(f"; {path}.refused.jsonl keeps these answers")
    lines = [json.loads(line) for line in Path(f"{path}.refused.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    expected = answer.tolist() if isinstance(answer, np.ndarray) else answer
    if isinstance(answer, dict):
        expected = {"scores": 1, "other": "{2}"}
    assert [line["answers"] for line in lines] == [expected] * 2
    np.testing.assert_array_equal(np.float32(lines[0]["x"]), x)
    assert teacher.predict(x).argmax(-1).tolist() == [0, 1, 2]


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


def test_threads_share_a_black_box(box):
    source = Recorder(lambda x: time.sleep(0.01) or logits(x))
    teacher, x, answers = box(source, pixels=False), inputs(30), {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: teacher.predict(x[5 * i :])})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(answers[i], logits(x[5 * i :]))
    assert sum(source.sizes) == teacher.queries == 30


def test_queries_can_be_read_during_a_call(box):
    counts = []

    def source(x):
        reader = threading.Thread(target=lambda: counts.append(teacher.queries), daemon=True)
        reader.start()
        reader.join(10)
        return logits(x)

    teacher = box(source, max_rows=2)
    teacher.predict(inputs(6))
    assert counts == [2, 4, 6]


@pytest.mark.parametrize("answers", ["labels", "scores", "logits"])
def test_white_box_gives_only_the_answers(box, answers):
    white = teachers.from_function(lambda x: 3 * jax.numpy.stack([x[:, 0], -x[:, 0], x[:, 1]], -1), SPEC)
    teacher, x = box(white, answers=answers), inputs(25)
    x[0] = 5, -3  # outside the valid range, but a white box gets unclipped inputs
    answer, expected = teacher.predict(x), white(x)
    assert teacher.queries == 25
    if answers == "logits":
        np.testing.assert_allclose(answer, expected, rtol=1e-6)
    elif answers == "scores":
        np.testing.assert_allclose(answer, jax.nn.log_softmax(expected), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(jax.nn.softmax(answer), np.eye(3)[expected.argmax(-1)])


def test_white_box_is_compiled_once(box):
    traces = []
    white = teachers.from_function(lambda x: traces.append(x.shape) or jax.numpy.pad(x, ((0, 0), (0, 1))), SPEC)
    traces.clear()
    teacher = box(white)
    for count in (3, 10, 25):
        teacher.predict(inputs(count, seed=count))
    assert traces == [(10, 2)]


def test_white_box_of_another_specification_is_refused(box):
    white = teachers.from_function(lambda x: jax.numpy.pad(x, ((0, 0), (0, 1))), dataclasses.replace(SPEC, low=None))
    assert "teacher.spec" in message_of(box, white)


@pytest.mark.parametrize(
    "options", [{"answers": "scores"}, {"pixels": False}, {"spec": dataclasses.replace(SPEC, low=None)}]
)
def test_ledger_of_other_terms_is_refused(box, tmp_path, options):
    box(logits, tmp_path / "ledger").close()
    assert str(tmp_path / "ledger") in message_of(box, logits, tmp_path / "ledger", **options)


def test_limits_may_change_between_runs(box, tmp_path):
    box(logits, tmp_path / "ledger").close()
    box(logits, tmp_path / "ledger", budget=1, max_rows=3, tries=2)


def test_ledger_serves_one_black_box_at_a_time(box, tmp_path):
    first = box(logits, tmp_path / "ledger")
    assert "another process" in message_of(box, logits, tmp_path / "ledger")
    first.close()
    assert "closed" in message_of(first.predict, inputs(1))
    with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
        assert ledger.num_rows == 0


def test_deleted_black_box_frees_its_ledger(tmp_path):
    BlackBox(logits, SPEC, QuerySettings("logits", 3), tmp_path / "ledger").predict(inputs(3))
    Ledger(tmp_path / "ledger").close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget", -1),
        ("max_rows", 0),
        ("tries", 0),
        ("rows_per_second", 0),
        ("requests_per_second", float("nan")),
        ("first_wait", -1),
        ("max_wait", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    message = message_of(QuerySettings, **{"answers": "logits", "budget": 1, name: value})
    assert message.startswith(f"QuerySettings.{name}: ")


def test_unknown_kind_of_answers_is_refused(box):
    assert "'guesses' is not one of" in message_of(box, logits, answers="guesses")
