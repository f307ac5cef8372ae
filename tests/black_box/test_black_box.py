"""A `BlackBox`: its requests, its budget, and what it remembers."""

import contextlib
import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from cake_errors import message_of
from recorded_sources import SPEC, Recorder, inputs, logits

from cake_jax import teachers
from cake_jax.black_box import BlackBox, Ledger, QuerySettings


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
