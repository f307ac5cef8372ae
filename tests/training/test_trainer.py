"""The trainer: against a loop by hand, over devices, resuming, batch norm, losses and refusals."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cake_jax import models, parallel, train
from cake_jax.training.trainer import DistillationLoss, TrainSettings
from cake_jax.types import CakeError, DataSpec, SampleBatch

SPEC = DataSpec((6,), 3)
SETTINGS = TrainSettings(epochs=4, batch_size=20, learning_rate=0.1, validation_fraction=0.2, schedule="constant")
KEY = jax.random.key(0)


class WithBatchNorm(nn.Module):
    """A dense layer, batch norm, a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(205, 6)).astype(np.float32)
    return x, (x @ rng.normal(size=(6, 3))).argmax(axis=1).astype(np.int32)


@pytest.fixture(scope="module")
def module():
    return models.create("mlp", SPEC, {"width": 8})


def run(module, points, settings, start=None):
    start = start or train.init(KEY, module, SPEC, settings)
    return list(train.epochs(KEY, start, module, SPEC, *points, settings))


def test_an_epoch_equals_a_loop_of_whole_batches_by_hand(module, points):
    """Mean gradients over the devices equal the gradient of the whole batch; momentum and L2 as in the textbook."""
    settings = dataclasses.replace(SETTINGS, epochs=1, weight_decay=0.01, validation_fraction=0.0, batch_size=205)
    state = train.init(KEY, module, SPEC, settings)
    rows = len(points[0]) // parallel.device_count() * parallel.device_count()
    ((trained, info),) = run(module, points, settings)
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 205))
    order = order[np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.split(KEY)[1], 0), 205))][:rows]
    x, y = points[0][order], points[1][order]

    def loss(params):
        log_p = jax.nn.log_softmax(module.apply({"params": params}, x))
        return -log_p[jnp.arange(rows), y].mean()

    value, gradient = jax.value_and_grad(loss)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.01 * p), state.params, gradient)
    assert info.loss == pytest.approx(float(value), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(trained.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_it_learns_and_validates_on_what_it_does_not_see(module, points):
    settings = dataclasses.replace(SETTINGS, epochs=30, schedule="one_cycle")
    history = run(module, points, settings)
    assert [info.epoch for _, info in history] == list(range(1, 31))
    last = history[-1][1]
    assert last.accuracy > 0.95
    assert 0.85 < last.validation_accuracy <= 1
    wrong = (points[0], (points[1] + 1) % 3)
    model = train.as_model(module, history[-1][0], SPEC)
    validation = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 205))[:41]
    predicted = np.argmax(model(points[0][validation]), axis=1)
    assert last.validation_accuracy == pytest.approx(np.mean(predicted == points[1][validation]))
    assert np.mean(predicted == wrong[1][validation]) < 0.2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "multi_step"])
def test_going_on_from_a_saved_state_is_bitwise_the_same(module, points, optimizer, schedule):
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, schedule=schedule, learning_rate=0.01)
    whole = run(module, points, settings)
    second = jax.tree.map(np.array, whole[1][0])
    resumed = run(module, points, settings, second)
    assert len(resumed) == 2
    assert resumed[-1][1] == whole[-1][1]
    jax.tree.map(np.testing.assert_array_equal, resumed[-1][0], whole[-1][0])


def test_calls_of_fewer_steps_change_nothing(module, points, monkeypatch):
    whole = run(module, points, SETTINGS)[-1]
    monkeypatch.setattr(train, "_CALL_BYTES", 3 * 20 * 6 * 4)
    parts = run(module, points, SETTINGS)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts[0], whole[0])


def test_batch_statistics_move_and_are_used(points):
    module = WithBatchNorm()
    settings = dataclasses.replace(SETTINGS, epochs=20)
    state, info = run(module, points, settings)[-1]
    start = train.init(KEY, module, SPEC, settings)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.model_state, start.model_state)
    assert min(jax.tree.leaves(moved)) > 1e-3
    model = train.as_model(module, state, SPEC)
    one_by_one = np.concatenate([model(x[None]) for x in points[0][:5]])
    np.testing.assert_allclose(one_by_one, model(points[0][:5]), atol=1e-5)
    assert info.validation_accuracy > 0.8


def test_distillation_gives_a_model_that_agrees(module, points):
    x, _ = points
    logits = (3 * x[:, :3]).astype(np.float32)
    ones = np.ones(len(x))
    samples = SampleBatch(x, logits, ones.astype(np.int32), ones.astype(np.float32), ones.astype(np.int32))
    settings = TrainSettings(
        epochs=60, batch_size=20, learning_rate=0.05, loss=DistillationLoss(2.0), validation_fraction=0
    )
    student = train.distill(KEY, module, samples, settings)
    assert student.spec == DataSpec((6,), 3)
    assert np.mean(np.argmax(student(x), axis=1) == logits.argmax(axis=1)) > 0.93


def test_a_hard_weight_of_one_sees_only_the_argmax():
    logits = jnp.array([[0.3, -1.0, 2.0]])
    weak, strong = jnp.array([[0.0, 0.1, 0.0]]), jnp.array([[0.0, 50.0, 0.0]])
    hard = DistillationLoss(temperature=3.0, hard_weight=1.0)
    assert hard(logits, weak) == hard(logits, strong)
    assert DistillationLoss(3.0)(logits, weak) != DistillationLoss(3.0)(logits, strong)


def test_optimizers_follow_optax(module, points):
    settings = dataclasses.replace(
        SETTINGS,
        optimizer="adamw",
        epochs=1,
        batch_size=1000,
        validation_fraction=0,
        weight_decay=0.1,
        learning_rate=1e-2,
    )
    state = train.init(KEY, module, SPEC, settings)
    ((trained, _),) = run(module, (points[0][:204], points[1][:204]), settings)

    def loss(params):
        logits = module.apply({"params": params}, points[0][:204])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, points[1][:204]).mean()

    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    updates, _ = optimizer.update(jax.grad(loss)(state.params), optimizer.init(state.params), state.params)
    expected = optax.apply_updates(state.params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), trained.params, expected)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"schedule": "linear"}, "schedule"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"loss": DistillationLoss(temperature=0.0)}, "temperature"),
        ({"loss": DistillationLoss(hard_weight=2.0)}, "hard_weight"),
    ],
)
def test_what_cannot_work_is_refused_by_field(change, field):
    with pytest.raises(CakeError, match=rf"student\.{field}"):
        train.check(dataclasses.replace(SETTINGS, **change), SPEC, "student")


def test_nan_and_too_few_examples_are_refused(module, points):
    with pytest.raises(CakeError, match="the loss is"):
        run(module, (points[0] * np.float32(np.nan), points[1]), SETTINGS)
    with pytest.raises(CakeError, match="fewer than the 2 devices"):
        run(module, (points[0][:1], points[1][:1]), SETTINGS)


def test_a_module_that_does_not_fit_is_refused():
    with pytest.raises(CakeError, match=r"CNN does not take inputs of shape \(6,\)"):
        train.init(KEY, models.create("cnn", SPEC), SPEC, SETTINGS)
