"""The answers of a `BlackBox`: their conversion to logits, and those that are refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from cake_errors import message_of
from recorded_sources import SPEC, Recorder, inputs, logits

from cake_jax import teachers
from cake_jax.black_box.answer_kinds import checked_answers


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


@pytest.mark.parametrize("answer", [{(1, 2): 0.5}, {"a": {"b": {3: {1}}, (): 1}}], ids=["pairs", "nested"])
def test_refused_answers_with_keys_that_are_no_texts_are_kept_as_text(box, answer, tmp_path):
    path = tmp_path / "ledger.sqlite"
    teacher = box(Recorder(first=[answer]), path, answers="scores")
    assert message_of(teacher.predict, inputs(3)).endswith(f"; {path}.refused.jsonl keeps these answers")
    (line,) = Path(f"{path}.refused.jsonl").read_text().splitlines()
    assert json.loads(line)["answers"] == repr(answer)


def test_refused_answers_that_cannot_be_kept_are_refused_all_the_same(box, tmp_path):
    path = tmp_path / "ledger.sqlite"
    Path(f"{path}.refused.jsonl").mkdir()
    message = message_of(box(Recorder(first=[None]), path, answers="scores").predict, inputs(3))
    assert message.endswith(f"; {path}.refused.jsonl cannot keep these answers: Is a directory")


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


def test_unknown_kind_of_answers_is_refused(box):
    assert "'guesses' is not one of" in message_of(box, logits, answers="guesses")
