"""Equinox modules as teachers."""

import sys

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax.teachers import from_equinox
from cake_jax.types import DataSpec

SPEC = DataSpec((3,), 2)
IMAGES = DataSpec((6, 5, 2), 2)


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def mlp(eqx, seed, width=8):
    return eqx.nn.MLP(3, 2, width, 2, key=jax.random.key(seed))


def test_module_of_one_example_or_of_a_batch(eqx, x):
    module = mlp(eqx, 0)
    expected = np.stack([module(row) for row in x])
    teacher = from_equinox(module, SPEC)
    np.testing.assert_allclose(teacher(x), expected, rtol=1e-5, atol=1e-6)
    batched = eqx.nn.Lambda(lambda x: jax.vmap(module)(x))
    np.testing.assert_allclose(from_equinox(batched, SPEC, batched=True)(x), expected, rtol=1e-5, atol=1e-6)
    assert teacher.num_params == 3 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    slope = jax.grad(lambda x: teacher(x)[:, 1].sum())(x)
    np.testing.assert_allclose(slope[2], jax.grad(lambda row: module(row)[1])(x[2]), rtol=1e-5, atol=1e-6)


def test_equal_architectures_compile_once(eqx, x):
    traces = []
    first, second = (from_equinox(mlp(eqx, seed), SPEC) for seed in (0, 1))
    assert first.apply_fn == second.apply_fn
    assert hash(first.apply_fn) == hash(second.apply_fn)
    assert first.apply_fn != from_equinox(mlp(eqx, 0, width=9), SPEC).apply_fn
    apply = jax.jit(lambda teacher, x: traces.append(1) or teacher(x))
    assert np.abs(apply(first, x) - apply(second, x)).max() > 1e-3
    assert len(traces) == 1


def test_images_with_batch_norm_and_dropout(eqx):
    class Net(eqx.Module):
        conv: object
        norm: object
        dropout: object
        dense: object

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(2, 4, 3, padding=1, key=key)
            self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="ema")
            self.dropout = eqx.nn.Dropout(0.5)
            self.dense = eqx.nn.Linear(4, 2, key=key)

        def __call__(self, x, state, key=None):
            x, state = self.norm(self.conv(x), state)
            return self.dense(self.dropout(jax.nn.relu(x).mean((1, 2)), key=key)), state

    module, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(7, 6, 5, 2)).astype(np.float32)
    columns = x.transpose(0, 3, 1, 2)
    train = jax.vmap(module, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
    _, state = train(2 * columns + 1, state, jax.random.split(jax.random.key(1), 7))
    teacher = from_equinox(module, IMAGES, state=state, channels_first=True)
    inference = eqx.nn.inference_mode(module)
    expected = np.stack([inference(image, state)[0] for image in columns])
    np.testing.assert_allclose(teacher(x), expected, rtol=1e-4, atol=1e-5)
    assert "does not take" in message_of(from_equinox, module, IMAGES, state=state)


@pytest.mark.parametrize(
    ("spec", "message"), [(DataSpec((4,), 2), "does not take 2 inputs"), (DataSpec((3,), 3), "returns (2, 2)")]
)
def test_module_that_does_not_fit_is_refused(eqx, spec, message):
    assert message in message_of(from_equinox, mlp(eqx, 0), spec)


def test_channels_first_is_refused_for_vectors(eqx):
    assert "for images" in message_of(from_equinox, mlp(eqx, 0), SPEC, channels_first=True)


def test_missing_equinox_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    assert "pip install equinox" in message_of(from_equinox, None, SPEC)
