"""Modes of students by any name, and dropout: its masks by hand, in chunks, after a resume, and in evaluation."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from flax import nnx
from small_training import KEY, SETTINGS, SPEC, history, shuffled

from cake_jax import cost, random_keys
from cake_jax.models.nnx_adapter import split
from cake_jax.training import Labels, programs, trainer


def layers(x, train):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


class OffByDefault(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return layers(x, train)


class OnByDefault(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return layers(x, train)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        return layers(x, not deterministic)


class Statistics(nn.Module):
    @nn.compact
    def __call__(self, x, *, use_running_average=True):
        return layers(x, not use_running_average)


class AField(nn.Module):
    training: bool = False

    @nn.compact
    def __call__(self, x):
        return layers(x, self.training)


class Dropped(nn.Module):
    """Dropout of the inputs, then a linear layer."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class NNXDropped(nnx.Module):
    """A hidden layer with dropout."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.hidden, self.out = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.hidden(x))))


@pytest.mark.parametrize("module", [OnByDefault, Deterministic, Statistics, AField])
def test_the_name_and_default_of_the_mode_change_nothing(module, points):
    expected, found = history(OffByDefault(), *points)[-1], history(module(), *points)[-1]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    moved = expected[0].model_state["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(moved).max() > 1e-3
    answers = [trainer.as_model(m, expected[0], SPEC).predict(points[0]) for m in (OffByDefault(), module())]
    np.testing.assert_array_equal(*answers)


def test_a_mode_that_is_not_understood_is_refused(points):
    class IsEval(nn.Module):
        @nn.compact
        def __call__(self, x, is_eval=False):
            return layers(x, not is_eval)

    assert "IsEval.__call__: the argument 'is_eval' is not understood" in message_of(history, IsEval(), *points)


def test_a_layer_that_never_trains_is_refused(points):
    class Frozen(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers(x, False)

    assert "BatchNorm_0 in Frozen is in evaluation mode during training" in message_of(history, Frozen(), *points)


@pytest.mark.parametrize("chunk", [10, 2])
def test_masks_by_hand(chunk, points, monkeypatch):
    """Two devices take 10 examples of a step each, at once or 2 by 2. The first example's key draws a chunk's mask.

    The learning rate is so small that the weights stay, and the loss of an epoch is that of its masks.
    """
    monkeypatch.setattr(programs, "_SMALLEST_CHUNK", chunk)
    monkeypatch.setattr(cost, "CORE_FLOPS", 1.0)
    programs.training_program.cache_clear()
    x, labels = points
    settings = dataclasses.replace(
        SETTINGS, epochs=2, learning_rate=1e-12, weight_decay=0.0, validation_fraction=0.0, momentum=0.0
    )
    epochs = history(Dropped(), x, labels, settings)
    programs.training_program.cache_clear()
    dense = trainer.init(KEY, Dropped(), SPEC, settings).params["Dense_0"]
    keys = random_keys.training_keys(KEY)
    examples, means = shuffled(keys.split, 205), []
    for epoch in range(2):
        order = examples[shuffled(jax.random.fold_in(keys.order, epoch), 205)]
        losses = []
        for step, rows in enumerate(order[:200].reshape(10, 20)):
            step_key = jax.random.fold_in(jax.random.fold_in(keys.batches, epoch), step)
            for place in range(0, 20, chunk):
                key = jax.random.fold_in(jax.random.fold_in(step_key, np.uint32(2**32 - 1)), place)
                part = rows[place : place + chunk]
                dropped = nn.Dropout(0.5, deterministic=False, name="Dropout_0").apply(
                    {}, x[part], rngs={"dropout": key}
                )
                assert set(np.round(np.asarray(dropped / x[part]).ravel(), 5)) <= {0.0, 2.0}
                log_p = jax.nn.log_softmax(
                    Dropped().apply({"params": {"Dense_0": dense}}, x[part], True, rngs={"dropout": key})
                )
                losses.append(-log_p[jnp.arange(chunk), labels.classes[part]].mean())
        means.append(np.mean(losses))
    found = [info.loss for _, info in epochs]
    np.testing.assert_allclose(found, means, rtol=1e-5)
    assert abs(means[0] - means[1]) > 1e-3


def test_evaluation_drops_nothing(points):
    x, labels = points
    state, info = history(Dropped(), x, labels)[-1]
    dense = state.params["Dense_0"]
    logits = x @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    np.testing.assert_allclose(trainer.as_model(Dropped(), state, SPEC).predict(x), logits, rtol=1e-4, atol=1e-5)
    held_out = shuffled(random_keys.training_keys(KEY).split, 205)[:41]
    right = logits[held_out].argmax(axis=1) == labels.classes[held_out]
    assert info.validation_accuracy == pytest.approx(right.mean())


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_resumed_training_draws_the_same_masks(kind, points):
    module, variables = (OffByDefault(), None) if kind == "linen" else split(NNXDropped())
    start = trainer.init(KEY, module, SPEC, SETTINGS, variables)
    whole = history(module, *points, state=start)
    resumed = history(module, *points, state=whole[1][0])
    assert resumed[-1][1] == whole[-1][1]
    for one, other in zip(resumed[-1][0], whole[-1][0], strict=True):
        jax.tree.map(np.testing.assert_array_equal, plain(one), plain(other))


def plain(tree):
    """A pytree whose random keys are arrays of numbers."""

    def numbers(leaf):
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)

    return jax.tree.map(numbers, tree)


def test_steps_in_a_call_draw_the_same_masks(points):
    x, labels = points[0], Labels(points[1].classes)
    whole, parts = history(Dropped(), x, labels)[-1], history(Dropped(), x, labels, steps_per_call=3)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts, whole)
