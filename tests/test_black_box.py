"""Teachers that can only be queried: what is asked of them, how often, and what becomes of the answers."""

import contextlib
import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from cake_jax import teachers
from cake_jax.teachers import BlackBox, Ledger, QuerySettings, Unanswered, black_box
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((2,), 3, mean=(0.5, 0.25), std=(0.5, 0.25), low=0.0, high=1.0)


def settings(answers="logits", budget=1000, **options):
    return QuerySettings(answers, budget, max_rows=options.pop("max_rows", 10), **options)


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(count, 2)).astype(np.float32)


def logits(x):
    return np.concatenate([x, x[:, :1] * x[:, 1:]], axis=1)


class Asked:
    """A teacher as a function, which remembers what it was asked; `trouble` is raised or answered first."""

    def __init__(self, answer=logits, trouble=()):
        self.answer, self.trouble, self.batches = answer, list(trouble), []

    def __call__(self, x):
        self.batches.append(x)
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, BaseException):
                raise trouble
            return trouble
        return self.answer(x)

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]


class Clock:
    """Stands for the module `time`: sleeping takes no time, and is written down."""

    def __init__(self):
        self.now, self.slept, self.calls = 100.0, [], []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def note(self, x):
        self.calls.append(self.now)
        return logits(x)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(black_box, "time", clock)
    return clock


@pytest.fixture
def box():
    """Makes a `BlackBox` of `SPEC`, closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(source, ledger=None, spec=SPEC, **options):
            return stack.enter_context(contextlib.closing(BlackBox(source, spec, settings(**options), ledger)))

        yield make


def message_of(call, *arguments):
    with pytest.raises(CakeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_logits_are_passed_on(box):
    teacher, x = box(logits, pixels=False), inputs(25)
    np.testing.assert_array_equal(teacher(x), logits(x))
    assert teacher(x).dtype == np.float32
    assert (teacher.spec, teacher.answers, teacher.num_params, teacher.inner) == (SPEC, "logits", None, None)
    assert teacher.queries == 25


def test_the_softmax_of_labels_is_one_hot(box):
    labels = np.array([2, 0, 1, 2])
    answer = jax.nn.softmax(box(lambda x: labels.tolist(), answers="labels")(inputs(4)))
    np.testing.assert_array_equal(answer, np.eye(3)[labels])


def test_the_softmax_of_scores_is_the_scores(box):
    scores = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 1e-20, 0.8]], np.float32)
    answer = box(lambda x: scores, answers="scores")(inputs(3))
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(jax.nn.softmax(answer), scores, rtol=1e-5, atol=1e-37)
    assert answer[2, 1] == pytest.approx(np.log(1e-20))


def test_it_sees_pixels(box):
    function, x = Asked(), inputs(5)
    x[0] = 9, -9
    box(function)(x)
    np.testing.assert_array_equal(function.batches[0], SPEC.denormalize(x))
    assert function.batches[0][0].tolist() == [1, 0]
    function = Asked()
    box(function, pixels=False)(x)
    np.testing.assert_array_equal(function.batches[0], x)


def test_an_answered_row_is_not_asked_again(box):
    function, x = Asked(), inputs(20)
    teacher = box(function, pixels=False)
    teacher(x[:8])
    answer = teacher(np.concatenate([x[5:], x[:7], x[5:6]]))
    np.testing.assert_array_equal(answer, logits(np.concatenate([x[5:], x[:7], x[5:6]])))
    np.testing.assert_array_equal(np.concatenate(function.batches), x)
    assert teacher.queries == 20


def test_a_row_that_comes_twice_is_asked_once(box):
    function, x = Asked(), inputs(4)[[0, 1, 1, 2, 0, 3]]
    teacher = box(function, pixels=False)
    np.testing.assert_array_equal(teacher(x), logits(x))
    np.testing.assert_array_equal(np.concatenate(function.batches), inputs(4))
    assert teacher.queries == 4


def test_requests_are_cut_by_position(box):
    function, x = Asked(), inputs(35)
    teacher = box(function)
    teacher(x[:15])
    assert function.sizes == [10, 5]
    teacher(x)
    assert function.sizes == [10, 5, 5, 10, 5]


def test_a_restart_asks_nothing_again(box, tmp_path):
    x = inputs(25)
    first = box(logits, tmp_path / "ledger", pixels=False)
    answers = first(x)
    first.close()
    teacher = box(None, tmp_path / "ledger", pixels=False)  # not even a function
    np.testing.assert_array_equal(teacher(x[::-1]), answers[::-1])
    assert teacher.queries == 25


def test_no_rows(box):
    function = Asked()
    for answers in ("labels", "scores"):
        assert box(function, answers=answers)(inputs(0)).shape == (0, 3)
    assert function.batches == []


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.zeros(2), np.full((4, 2), np.nan), np.full((1, 2), np.inf)])
def test_inputs_that_cannot_be(box, x):
    function = Asked()
    teacher = box(function)
    assert "(2,)" in message_of(teacher, x)
    assert (function.batches, teacher.queries) == ([], 0)


def test_the_budget_is_spent_and_no_more(box, tmp_path):
    function, x = Asked(), inputs(30)
    teacher = box(function, tmp_path / "ledger", budget=20)
    message = message_of(teacher, x[:21])
    assert "21" in message
    assert "budget of 20" in message
    assert "0 are spent" in message
    assert (function.batches, teacher.queries) == ([], 0)
    teacher(x[:12])
    teacher(x[4:20])
    assert (sum(function.sizes), teacher.queries) == (20, 20)
    teacher(x[:20])
    assert "20 are spent" in message_of(teacher, x[19:21])
    assert (sum(function.sizes), teacher.queries) == (20, 20)
    teacher.close()
    again = box(function, tmp_path / "ledger", budget=20)
    assert "20 are spent" in message_of(again, x[20:21])
    assert sum(function.sizes) == 20
    again.close()
    box(function, tmp_path / "ledger", budget=21)(x[:21])
    assert sum(function.sizes) == 21


def test_the_budget_is_reserved_before_it_is_spent(box, tmp_path):
    """What was sent and not answered counts, and its repetition does not count again."""
    x = inputs(20)
    teacher = box(Asked(trouble=[logits(x[:10]), KeyboardInterrupt()]), tmp_path / "ledger", budget=20, pixels=False)
    with pytest.raises(KeyboardInterrupt):
        teacher(x)
    assert teacher.queries == 20
    assert "1 more" in message_of(teacher, inputs(1, seed=1))
    teacher.close()
    function = Asked()
    again = box(function, tmp_path / "ledger", budget=20, pixels=False)
    np.testing.assert_array_equal(again(x), logits(x))
    np.testing.assert_array_equal(np.concatenate(function.batches), x[10:])
    assert again.queries == 20


def test_what_waits_is_repeated_as_it_was_for_whoever_wants_a_part(box, tmp_path):
    x = inputs(30)
    teacher = box(Asked(trouble=[ValueError("no")]), tmp_path / "ledger")
    message_of(teacher, x[:10])
    teacher.close()
    function = Asked()
    again = box(function, tmp_path / "ledger", max_rows=4)
    again(x[20:22])
    assert function.sizes == [2]
    again(x[8:13])
    assert function.sizes == [2, 10, 2, 1]
    np.testing.assert_array_equal(function.batches[1], SPEC.denormalize(x[:10]))
    assert again.queries == 15


def test_what_waits_and_nobody_wants_goes_on_waiting(box, tmp_path):
    x = inputs(4)
    teacher = box(Asked(trouble=[ValueError("no")] * 2), tmp_path / "ledger", pixels=False)
    for rows in (x[:2], x[2:]):
        message_of(teacher, rows)
    teacher.close()
    function = Asked()
    again = box(function, tmp_path / "ledger", pixels=False)
    again(x[3:])
    np.testing.assert_array_equal(np.concatenate(function.batches), x[2:])
    again(x)
    np.testing.assert_array_equal(np.concatenate(function.batches), x[[2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("answers", "answer", "parts"),
    [
        ("labels", [0, 1, 3], ("label 3", "0 to 2")),
        ("labels", [0, -1, 1], ("label -1",)),
        ("labels", np.array([0, 2**32, 1]), ("label 4294967296",)),
        ("labels", [0, 1], ("(2,)", "(3,)")),
        ("labels", [[0], [1], [2]], ("(3, 1)",)),
        ("labels", [0.0, 1.0, 2.0], ("float64",)),
        ("labels", ["0", "1", "2"], ("<U1",)),
        ("labels", [True, False, True], ("bool",)),
        ("labels", None, ("()",)),
        ("scores", np.full((3, 3), 0.3), ("0.9", "logits")),
        ("scores", [[0.5, 0.6, -0.1]] * 3, ("-0.1", "logits")),
        ("scores", [[0.5, 0.5, float("nan")]] * 3, ("not finite",)),
        ("scores", np.full((3, 4), 0.25), ("(3, 4)", "(3, 3)")),
        ("scores", [[0.5, 0.5]] * 2 + [[1.0]], ("array",)),
        ("logits", np.full((3, 3), np.inf), ("not finite",)),
        ("logits", np.full((3, 3), 1e300), ("not finite",)),
        ("logits", np.zeros((2, 3)), ("(2, 3)",)),
        ("logits", np.zeros((4, 3)), ("(4, 3)",)),
        ("logits", np.zeros((3, 3), complex), ("complex",)),
        ("logits", np.full((3, 3), None), ("object",)),
    ],
)
def test_answers_that_cannot_be(box, answers, answer, parts):
    function = Asked(trouble=[answer])
    teacher, x = box(function, answers=answers), inputs(3)
    message = message_of(teacher, x)
    for part in parts:
        assert part in message
    function.answer = {"labels": lambda x: [0, 1, 2]}.get(answers, lambda x: np.eye(3))
    np.testing.assert_array_equal(teacher(x).argmax(-1), [0, 1, 2])  # nothing of the wrong answer was kept
    assert teacher.queries == 3


@pytest.mark.parametrize("error", [Unanswered("busy"), ConnectionError("gone"), TimeoutError("late")])
def test_repetitions_back_off(box, clock, error):
    function = Asked(trouble=[error] * 4)
    teacher = box(function, pixels=False, first_wait=1.0, max_wait=6.0)
    np.testing.assert_array_equal(teacher(inputs(3)), logits(inputs(3)))
    assert function.sizes == [3] * 5
    for waited, least, most in zip(clock.slept, [1, 2, 4, 6], [2, 3, 5, 6], strict=True):
        assert least <= waited <= most
    assert any(waited % 1 for waited in clock.slept)
    assert teacher.queries == 3


def test_repetitions_end(box, clock):
    function = Asked(trouble=[Unanswered("busy\nvery busy")] * 3)
    teacher = box(function, tries=3)
    message = message_of(teacher, inputs(3))
    assert "3 tries" in message
    assert "busy" in message
    assert "run again" in message
    assert function.sizes == [3] * 3
    teacher(inputs(3))
    assert teacher.queries == 3


def test_what_a_teacher_asks_to_wait(box, clock):
    function = Asked(trouble=[Unanswered("busy", after=20.0)])
    teacher = box(function, max_wait=30.0)
    teacher(inputs(3))
    assert clock.slept == [20.0]
    function.trouble = [Unanswered("busy", after=31.0)]
    assert "31 s" in message_of(teacher, inputs(3, seed=1))
    assert (clock.slept, len(function.sizes)) == ([20.0], 3)


def test_other_errors_are_not_repeated(box, clock):
    function = Asked(trouble=[KeyError("gone\nfor good")])
    message = message_of(box(function), inputs(3))
    assert "(3, 2)" in message
    assert "gone" in message
    assert function.sizes == [3]


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
def test_rate(box, clock, limits, times):
    teacher = box(clock.note, pixels=False, **limits)
    np.testing.assert_array_equal(teacher(inputs(25)), logits(inputs(25)))
    np.testing.assert_allclose(clock.calls, np.add(times, 100.0))


def test_a_request_has_no_more_rows_than_a_second(box, clock):
    function = Asked()
    box(function, rows_per_second=4.5)(inputs(10))
    assert function.sizes == [4, 4, 2]
    function = Asked()
    box(function, rows_per_second=0.5)(inputs(3))
    assert function.sizes == [1, 1, 1]
    np.testing.assert_allclose(clock.slept[-2:], [2, 2])


def test_repetitions_keep_to_the_rate(box, clock):
    function = Asked(trouble=[Unanswered("busy")])
    box(function, requests_per_second=0.01, first_wait=1.0)(inputs(3))
    assert sum(clock.slept) == pytest.approx(100)


def test_real_time(box):
    start = time.monotonic()
    box(logits, requests_per_second=20)(inputs(25))
    assert 0.1 <= time.monotonic() - start < 5


def test_threads_take_turns(box):
    function = Asked(lambda x: time.sleep(0.01) or logits(x))
    teacher, x, answers = box(function, pixels=False), inputs(30), {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: teacher(x[5 * i :])})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(answers[i], logits(x[5 * i :]))
    assert sum(function.sizes) == teacher.queries == 30


def test_another_thread_may_look_on(box):
    teacher, seen, done = box(logits, max_rows=1), [], threading.Event()

    def look():
        while not done.is_set():
            seen.append(teacher.queries)

    watcher = threading.Thread(target=look)
    watcher.start()
    teacher(inputs(300))
    done.set()
    watcher.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


@pytest.mark.parametrize("answers", ["labels", "scores", "logits"])
def test_a_teacher_in_disguise(box, answers):
    inner = teachers.from_function(lambda x: 3 * jax.numpy.stack([x[:, 0], -x[:, 0], x[:, 1]], -1), SPEC)
    teacher, x = box(inner, answers=answers), inputs(25)
    x[0] = 5, -3  # outside the pixels' range, where a white box is not clipped
    answer, wanted = teacher(x), inner(x)
    assert teacher.inner is inner
    assert teacher.queries == 25
    if answers == "logits":
        np.testing.assert_allclose(answer, wanted, rtol=1e-6)
    elif answers == "scores":
        np.testing.assert_allclose(answer, jax.nn.log_softmax(wanted), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(jax.nn.softmax(answer), np.eye(3)[wanted.argmax(-1)])


def test_a_disguise_is_compiled_once(box):
    traces = []
    inner = teachers.from_function(lambda x: traces.append(x.shape) or jax.numpy.zeros((len(x), 3)), SPEC)
    traces.clear()
    teacher = box(inner)
    for count in (3, 10, 25):
        teacher(inputs(count, seed=count))
    assert traces == [(10, 2)]


def test_a_disguise_of_another_domain(box):
    inner = teachers.from_function(lambda x: jax.numpy.zeros((len(x), 3)), dataclasses.replace(SPEC, low=None))
    assert "domain" in message_of(box, inner)


def test_a_ledger_of_other_terms(box, tmp_path):
    box(logits, tmp_path / "ledger").close()
    for options in ({"answers": "scores"}, {"pixels": False}, {"spec": dataclasses.replace(SPEC, low=None)}):
        assert str(tmp_path / "ledger") in message_of(
            lambda options=options: box(logits, tmp_path / "ledger", **options)
        )
    box(logits, tmp_path / "ledger", budget=1, max_rows=3)


def test_one_black_box_a_ledger(box, tmp_path):
    first = box(logits, tmp_path / "ledger")
    assert "another process" in message_of(box, logits, tmp_path / "ledger")
    first.close()
    assert "closed" in message_of(first, inputs(1))
    with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
        assert ledger.num_rows == 0


def test_a_ledger_that_nobody_closed(tmp_path):
    BlackBox(logits, SPEC, settings(), tmp_path / "ledger")(inputs(3))
    Ledger(tmp_path / "ledger").close()


@pytest.mark.parametrize(
    "options",
    [
        {"budget": -1},
        {"max_rows": 0},
        {"tries": 0},
        {"rows_per_second": 0},
        {"requests_per_second": float("nan")},
        {"first_wait": -1},
        {"max_wait": -1},
    ],
)
def test_settings_out_of_range(options):
    (name,) = options
    assert f"QuerySettings.{name}: " in message_of(lambda: settings(**options))


def test_no_such_kind_of_answers(box):
    assert "guesses" in message_of(lambda: box(logits, answers="guesses"))
