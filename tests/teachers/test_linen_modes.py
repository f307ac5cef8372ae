"""Linen teachers whose mode has any name and default, and students that start from a teacher."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax.models import modes
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec, SampleBatch

SPEC = DataSpec((3,), 2)
X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def layers(x, train):
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
    return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


def with_call(call):
    """A module that is called as `call(module, x, ...)`."""

    class Net(nn.Module):
        __call__ = nn.compact(call)

    return Net()


OFF = with_call(lambda self, x, train=False: layers(x, train))


@pytest.fixture(scope="module")
def variables():
    """Variables whose running mean and variance are not those of the data."""
    variables = modes.init(OFF, jax.random.key(0), X)
    statistics = {"BatchNorm_0": {"mean": np.full(8, 0.3, np.float32), "var": np.full(8, 4.0, np.float32)}}
    return {**variables, "batch_stats": statistics}


@pytest.mark.parametrize(
    "module",
    [
        with_call(lambda self, x, train=True: layers(x, train)),
        with_call(lambda self, x, train: layers(x, train)),
        with_call(lambda self, x, is_training=True: layers(x, is_training)),
        with_call(lambda self, x, *, deterministic=False: layers(x, not deterministic)),
        with_call(lambda self, x, use_running_average=None: layers(x, not use_running_average)),
        with_call(lambda self, x, train=True, deterministic=False: layers(x, train or not deterministic)),
    ],
)
def test_every_teacher_is_in_evaluation_mode(module, variables):
    """Running statistics normalise, and nothing is dropped: the values by hand."""
    first, second = (variables["params"][name] for name in ("Dense_0", "Dense_1"))
    hidden = (X @ np.asarray(first["kernel"]) + np.asarray(first["bias"]) - 0.3) / np.sqrt(4 + 1e-5)
    expected = np.maximum(hidden, 0) @ np.asarray(second["kernel"]) + np.asarray(second["bias"])
    teacher = from_linen(module, variables, SPEC)
    np.testing.assert_allclose(teacher.predict(X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda teacher: teacher(X))(teacher), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            with_call(lambda self, x, is_eval=False: layers(x, not is_eval)),
            "Net.__call__: the argument 'is_eval' is not",
        ),
        (with_call(lambda self, x, **mode: layers(x, False)), "Net.__call__ takes **mode"),
        (with_call(lambda self, x: layers(x, True)), "BatchNorm_0 in Net is in training mode during evaluation"),
    ],
)
def test_a_teacher_without_an_evaluation_mode_is_refused(module, message, variables):
    assert message_of(from_linen, module, variables, SPEC).startswith(f"model: {message}")


def test_a_student_starts_from_a_teacher_s_weights(variables):
    start, number = from_linen(OFF, variables, SPEC), np.arange(64, dtype=np.int32)
    samples = SampleBatch(X, start.predict(X), number % 2, np.ones(64, np.float32), number)
    settings = cake_jax.TrainSettings(epochs=1, learning_rate=1e-9, weight_decay=0, validation_fraction=0)
    student = cake_jax.distill(jax.random.key(1), start, samples, settings)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), student.variables["params"], variables["params"]
    )
    moved = student.variables["batch_stats"]["BatchNorm_0"]["mean"] - variables["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(moved).max() > 1e-4
