"""Logits of many inputs over the devices, and figures of a model against hand-made logits."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax.evaluation import evaluate, predict
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec

# Row i: logits of the model on input i.
STUDENT = np.array([[3.0, 1, 0], [0, 2, 1], [1, 4, 0], [5, 0, 1], [0, 1, -1]], np.float32)  # classes 0 1 1 0 1
TEACHER = np.array([[2.0, 0, 1], [1, 3, 0], [2, 0, 0], [4, 1, 1], [0, 0, 3]], np.float32)  # classes 0 1 0 0 2
LABELS = np.array([0, 1, 1, 1, 1])
INPUTS = np.eye(5, dtype=np.float32)


def table(logits):
    """A model whose logits on input i are row i."""
    return from_function(lambda x: x @ jnp.asarray(logits), DataSpec((5,), 3))


def kl(teacher, student):
    def log_softmax(logits):
        logits = logits.astype(np.float64)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    return (np.exp(log_softmax(teacher)) * (log_softmax(teacher) - log_softmax(student))).sum(axis=1).mean()


@pytest.mark.parametrize(
    ("count", "options"),
    [(1, {}), (3, {}), (1003, {}), (1, {"batch_size": 4}), (7, {"batch_size": 2}), (12, {"batch_size": 3})],
)
def test_predict_equals_the_plain_call(count, options):
    weights = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    model = from_function(lambda x: jnp.tanh(x.sum(axis=1)) @ weights, DataSpec((2, 3), 4))
    x = np.random.default_rng(count).normal(size=(count, 2, 3)).astype(np.float32)
    logits = predict(model, x, **options)
    assert isinstance(logits, np.ndarray)
    assert (logits.dtype, logits.shape) == (np.float32, (count, 4))
    np.testing.assert_allclose(logits, model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predict(model, jnp.asarray(x), **options), logits)


@pytest.mark.parametrize("as_function", [False, True])
def test_figures(as_function):
    teacher = table(TEACHER)
    result = evaluate(table(STUDENT), teacher.apply_fn.function if as_function else teacher, INPUTS, LABELS)
    assert result["accuracy"] == pytest.approx(4 / 5)
    assert result["teacher_accuracy"] == pytest.approx(2 / 5)
    assert result["agreement"] == pytest.approx(3 / 5)
    assert result["per_class_accuracy"] == [1.0, pytest.approx(3 / 4), None]
    assert result["kl"] == pytest.approx(kl(TEACHER, STUDENT), rel=1e-5)
    assert abs(kl(TEACHER, STUDENT) - kl(STUDENT, TEACHER)) > 0.01
    assert json.loads(json.dumps(result)) == result


def test_a_model_agrees_with_itself():
    result = evaluate(table(TEACHER), table(TEACHER), INPUTS, LABELS)
    assert result["agreement"] == 1
    assert result["accuracy"] == result["teacher_accuracy"] == pytest.approx(2 / 5)
    assert result["kl"] == pytest.approx(0, abs=1e-6)


def test_every_input_counts_once():
    count = 1003
    x = np.zeros((count, 1), np.float32)
    x[-1] = 1  # the last row, which padding would repeat
    student = from_function(lambda x: jnp.concatenate([x, 0.5 + 0 * x], axis=1), DataSpec((1,), 2))
    result = evaluate(student, None, x, np.zeros(count, int))
    assert result["accuracy"] == pytest.approx(1 / count)
    assert result["per_class_accuracy"] == [pytest.approx(1 / count), None]


@pytest.mark.parametrize(
    ("has_teacher", "has_labels", "given"),
    [
        (False, True, {"accuracy", "per_class_accuracy"}),
        (True, False, {"agreement", "kl"}),
        (False, False, set()),
    ],
)
def test_what_cannot_be_told_is_none(has_teacher, has_labels, given):
    result = evaluate(table(STUDENT), table(TEACHER) if has_teacher else None, INPUTS, LABELS if has_labels else None)
    assert set(result) == {"accuracy", "per_class_accuracy", "teacher_accuracy", "agreement", "kl"}
    assert {name for name, value in result.items() if value is not None} == given
