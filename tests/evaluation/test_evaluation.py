"""Figures of a model against hand-made logits, and evaluators that are added."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax.evaluation import EVALUATORS, evaluate
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec

# Row i holds the logits of the model for input i.
STUDENT = np.array([[3.0, 1, 0], [0, 2, 1], [1, 4, 0], [5, 0, 1], [0, 1, -1]], np.float32)  # classes 0 1 1 0 1
TEACHER = np.array([[2.0, 0, 1], [1, 3, 0], [2, 0, 0], [4, 1, 1], [0, 0, 3]], np.float32)  # classes 0 1 0 0 2
LABELS = np.array([0, 1, 1, 1, 1])
INPUTS = np.eye(5, dtype=np.float32)


def function_of(logits):
    """A function whose logits for input i are row i."""
    return lambda x: x @ jnp.asarray(logits)


def model_of(logits):
    return from_function(function_of(logits), DataSpec((5,), 3))


def kl(teacher, student):
    def log_softmax(logits):
        logits = logits.astype(np.float64)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    return (np.exp(log_softmax(teacher)) * (log_softmax(teacher) - log_softmax(student))).sum(axis=1).mean()


@pytest.mark.parametrize("teacher", [model_of(TEACHER), function_of(TEACHER)], ids=["model", "function"])
def test_figures_equal_the_formulas(teacher):
    result = evaluate(model_of(STUDENT), teacher, INPUTS, LABELS)
    assert result["accuracy"] == pytest.approx(4 / 5)
    assert result["teacher_accuracy"] == pytest.approx(2 / 5)
    assert result["agreement"] == pytest.approx(3 / 5)
    assert result["per_class_accuracy"] == [1.0, pytest.approx(3 / 4), None]
    assert result["kl"] == pytest.approx(kl(TEACHER, STUDENT), rel=1e-5)
    assert abs(kl(TEACHER, STUDENT) - kl(STUDENT, TEACHER)) > 0.01
    assert json.loads(json.dumps(result)) == result


def test_a_model_agrees_with_itself():
    result = evaluate(model_of(TEACHER), model_of(TEACHER), INPUTS, LABELS)
    assert result["agreement"] == 1
    assert result["accuracy"] == result["teacher_accuracy"] == pytest.approx(2 / 5)
    assert result["kl"] == pytest.approx(0, abs=1e-6)


def test_every_input_counts_once():
    count = 1003
    x = np.zeros((count, 1), np.float32)
    x[-1] = 1  # padding repeats the last input
    student = from_function(lambda x: jnp.concatenate([x, 0.5 + 0 * x], axis=1), DataSpec((1,), 2))
    result = evaluate(student, None, x, np.zeros(count, int))
    assert result["accuracy"] == pytest.approx(1 / count)
    assert result["per_class_accuracy"] == [pytest.approx(1 / count), None]


@pytest.mark.parametrize(
    ("teacher", "labels", "known"),
    [
        (None, LABELS, {"accuracy", "per_class_accuracy"}),
        (model_of(TEACHER), None, {"agreement", "kl"}),
        (None, None, set()),
    ],
    ids=["no teacher", "no labels", "neither"],
)
def test_a_figure_that_cannot_be_computed_is_none(teacher, labels, known):
    result = evaluate(model_of(STUDENT), teacher, INPUTS, labels)
    assert set(result) == {"accuracy", "per_class_accuracy", "teacher_accuracy", "agreement", "kl"}
    assert {name for name, value in result.items() if value is not None} == known


def test_figures_of_an_added_evaluator_are_returned(monkeypatch):
    seen = []

    def distance(answers):
        seen.append(answers)
        return {"logit_distance": float(np.abs(answers.student - answers.teacher).max())}

    monkeypatch.setitem(EVALUATORS, "distance", distance)
    result = evaluate(model_of(STUDENT), model_of(TEACHER), INPUTS, LABELS)
    assert result["logit_distance"] == 4
    assert {"accuracy", "agreement"} < set(result)
    (answers,) = seen
    assert answers.num_classes == 3
    for given, expected in zip(answers, (INPUTS, LABELS, 3, STUDENT, TEACHER), strict=True):
        np.testing.assert_array_equal(given, expected)
