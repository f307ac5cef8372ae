"""The trainer: one epoch against a loop by hand, resumed trainings, batch norm, device calls, and refusals."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cake_errors import message_of
from small_training import KEY, SETTINGS, SPEC, history, shuffled

from cake_jax import cost, models, parallel, random_keys
from cake_jax.training import Labels, TrainSettings, classification_loss, programs, trainer
from cake_jax.types import DataSpec


class WithBatchNorm(nn.Module):
    """A dense layer, batch norm, a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


class WithClassLoss(nn.Module):
    """A linear model with its own loss on classes."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)

    @nn.nowrap
    def class_loss(self, params, logits, classes, batch_size):
        return jnp.square(logits - jax.nn.one_hot(classes, 3)).sum(axis=-1) + batch_size


def test_one_epoch_equals_a_loop_by_hand(module, points):
    """Gradients averaged over devices are those of the whole batch. Momentum and L2 penalty are the textbook's."""
    x, labels = points
    settings = dataclasses.replace(SETTINGS, epochs=2, weight_decay=0.01, validation_fraction=0.0, batch_size=100)
    trained, info = history(module, x, labels, settings)[-1]
    training_keys = random_keys.training_keys(KEY)
    examples = shuffled(training_keys.split, 205)
    params = jax.tree.map(np.asarray, trainer.init(KEY, module, SPEC, settings).params)
    momentum = jax.tree.map(np.zeros_like, params)

    @jax.jit
    def loss_and_gradient(params, x, classes):
        def loss(params):
            log_p = jax.nn.log_softmax(module.apply({"params": params}, x))
            return -log_p[jnp.arange(100), classes].mean()

        return jax.value_and_grad(loss)(params)

    for epoch in range(2):
        order_key = jax.random.fold_in(training_keys.order, epoch)
        order = examples[shuffled(order_key, 205)]
        losses = []
        for batch in order[:200].reshape(2, 100):
            loss, gradient = jax.device_get(loss_and_gradient(params, x[batch], labels.classes[batch]))
            momentum = jax.tree.map(lambda m, g, p: 0.9 * m + g + 0.01 * p, momentum, gradient, params)
            params = jax.tree.map(lambda p, m: p - 0.1 * m, params, momentum)
            losses.append(float(loss))
    assert info.loss == pytest.approx(np.mean(losses), rel=1e-5)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), trained.params, params)


def test_epochs_share_a_program(points):
    """The first epoch starts from the state of `init`, and the second from the first one's."""
    calls = []

    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            calls.append(train)
            return nn.Dense(3)(x)

    state, settings = trainer.init(KEY, Counting(), SPEC, SETTINGS), dataclasses.replace(SETTINGS, epochs=3)
    epochs = trainer.epochs(KEY, state, Counting(), SPEC, *points, settings, loss=classification_loss)
    counts = [sum(calls) for _ in epochs]
    assert counts[0] == counts[2] > 0


def test_validation_uses_examples_that_the_training_leaves_out(module, points):
    x, labels = points
    settings = dataclasses.replace(SETTINGS, epochs=30, schedule="one_cycle")
    epochs = history(module, x, labels, settings)
    assert [info.epoch for _, info in epochs] == list(range(1, 31))
    state, last = epochs[-1]
    assert last.accuracy > 0.9
    held_out = shuffled(random_keys.training_keys(KEY).split, 205)[:41]
    logits = trainer.as_model(module, state, SPEC).predict(x[held_out])
    assert last.validation_accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == labels.classes[held_out]))
    loss = classification_loss(logits, Labels(labels.classes[held_out])).mean()
    assert last.validation_loss == pytest.approx(float(loss), rel=1e-5)
    assert last.validation_accuracy > 0.8

    wrong = labels.classes.copy()
    wrong[held_out] = (wrong[held_out] + 1) % 3
    ((_, other),) = history(module, x, Labels(wrong), settings, state=epochs[-2][0])
    assert (other.loss, other.accuracy) == (last.loss, last.accuracy)
    assert other.validation_accuracy < 0.2


def test_without_held_out_examples_there_are_no_validation_figures(module, points):
    ((_, info),) = history(module, *points, dataclasses.replace(SETTINGS, epochs=1, validation_fraction=0.0))
    assert info.validation_loss is None
    assert info.validation_accuracy is None


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [("sgd", "constant"), ("sgd", "one_cycle"), ("sgd", "multi_step"), ("adam", "one_cycle"), ("adamw", "multi_step")],
)
def test_resumed_training_is_bitwise_the_same(module, points, optimizer, schedule):
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, schedule=schedule, learning_rate=0.01)
    whole = history(module, *points, settings)
    resumed = history(module, *points, settings, state=jax.tree.map(np.array, whole[1][0]))
    assert len(resumed) == 2
    assert resumed[-1][1] == whole[-1][1]
    jax.tree.map(np.testing.assert_array_equal, resumed[-1][0], whole[-1][0])


def test_bf16_computes_in_bf16_and_keeps_float32_weights(points):
    """bf16 has 8 bits. So figures differ, by less than a hundredth, and small updates of the weights are not lost."""
    figures = {}
    for precision in ("float32", "bf16"):
        settings = dataclasses.replace(SETTINGS, precision=precision, learning_rate=1e-4, validation_fraction=0.0)
        (state, info), *_ = history(WithBatchNorm(), *points, settings)
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype("float32"), np.dtype("int32")}
        start = trainer.init(KEY, WithBatchNorm(), SPEC, settings)
        moved = jax.tree.map(lambda after, before: np.abs(after - before).max() > 0, state.params, start.params)
        assert moved["Dense_1"]["kernel"]
        figures[precision] = info.loss
    assert figures["bf16"] != figures["float32"]
    assert figures["bf16"] == pytest.approx(figures["float32"], rel=0.01)


def test_the_number_of_steps_in_a_call_changes_only_the_rounding(module, points):
    """8 steps an epoch, in one call and in calls of 3, 3 and 2."""
    whole = history(module, *points)[-1]
    parts = history(module, *points, steps_per_call=3)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts, whole)


def test_chunks_of_a_batch_change_only_the_rounding(module, points, monkeypatch):
    sizes = set()

    def watched(logits, labels):
        sizes.add(len(logits))
        return classification_loss(logits, labels)

    whole = history(module, *points)[-1]
    monkeypatch.setattr(programs, "_SMALLEST_CHUNK", 2)
    monkeypatch.setattr(cost, "CORE_FLOPS", 1.0)
    parts = history(module, *points, loss=watched)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts, whole)
    assert 2 in sizes


@pytest.mark.parametrize(("flops", "size"), [(1e3, 48), (cost.CORE_FLOPS / 20, 16), (cost.CORE_FLOPS, 8)])
def test_a_chunk_is_the_largest_part_of_a_batch_that_stays_in_the_cache(monkeypatch, flops, size):
    """48 examples, of which 48, 20 or 1 fit. Fewer than 8 are never a chunk."""
    monkeypatch.setattr(cost, "flops", lambda *arguments: 48 * flops)
    module = nn.Dense(3)
    assert programs._chunk_size(module, {}, jnp.zeros((48, 6))) == size


def test_a_batch_without_a_fitting_part_is_one_chunk(monkeypatch):
    monkeypatch.setattr(cost, "flops", lambda *arguments: 1e12)
    assert programs._chunk_size(nn.Dense(3), {}, jnp.zeros((47, 6))) == 47


def test_examples_that_stay_on_the_devices_train_like_those_that_travel(module, points, monkeypatch):
    stay = history(module, *points)
    monkeypatch.setattr(trainer, "_RESIDENT_BYTES", 0)
    travel = history(module, *points)
    jax.tree.map(np.testing.assert_array_equal, stay, travel)


def test_a_device_call_takes_64_mib_of_inputs_at_most(monkeypatch):
    """4 steps of 32 MiB make two calls. All examples share their memory, so only the calls' copies are large."""

    class FirstValues(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x[:, :2])

    spec = DataSpec((2**22,), 3)
    x = np.broadcast_to(np.float32(1.0), (8, 2**22))
    settings = TrainSettings(epochs=1, batch_size=2, schedule="constant", validation_fraction=0.0)
    megabytes, map_all_devices = [], parallel.map_all_devices

    def watched(function, **axes):
        run = map_all_devices(function, **axes)

        def call(state, source, *others):
            megabytes.append(source[0].nbytes / 2**20)
            return run(state, source, *others)

        return call

    monkeypatch.setattr(parallel, "map_all_devices", watched)
    monkeypatch.setattr(trainer, "_RESIDENT_BYTES", 0)
    state = trainer.init(KEY, FirstValues(), spec, settings)
    labels = Labels(np.arange(8, dtype=np.int32) % 3)
    ((trained, _),) = trainer.epochs(KEY, state, FirstValues(), spec, x, labels, settings, loss=classification_loss)
    assert megabytes == [64, 64]
    assert int(trained.epoch) == 1


def test_batch_norm_statistics_are_trained_and_used(points):
    module = WithBatchNorm()
    settings = dataclasses.replace(SETTINGS, epochs=20)
    state, info = history(module, *points, settings)[-1]
    start = trainer.init(KEY, module, SPEC, settings)
    moved = jax.tree.map(lambda a, b: np.abs(np.subtract(a, b)).max(), state.model_state, start.model_state)
    assert min(jax.tree.leaves(moved)) > 1e-3
    x, answer = points[0], jax.jit(lambda x: trainer.as_model(module, state, SPEC)(x))
    one_by_one = np.concatenate([answer(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, answer(x[:5]), atol=1e-5)
    assert info.validation_accuracy > 0.8


def test_a_modules_own_loss_is_used_for_classes_alone(points):
    """The loss of the first step, before the weights move. The batch is the whole batch, over all devices."""
    x, labels = points
    module, settings = WithClassLoss(), dataclasses.replace(SETTINGS, epochs=1, batch_size=204, validation_fraction=0.0)
    state = trainer.init(KEY, module, SPEC, settings)
    ((_, own),) = history(module, x, labels, settings, state=state)
    kernel = np.asarray(state.params["Dense_0"]["kernel"])
    logits = x @ kernel  # the bias starts at 0
    per_example = np.square(logits - np.eye(3)[labels.classes]).sum(axis=-1)
    assert own.loss == pytest.approx(per_example.mean() + 204, abs=0.1)
    ((_, given),) = history(module, x, labels._replace(logits=np.zeros((205, 3), np.float32)), settings, state=state)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    assert given.loss == pytest.approx(-log_p[np.arange(205), labels.classes].mean(), rel=0.05)


def test_adamw_follows_optax(module, points):
    x, classes = points[0][:204], points[1].classes[:204]
    changes = {"optimizer": "adamw", "epochs": 1, "batch_size": 1000, "validation_fraction": 0.0}
    settings = dataclasses.replace(SETTINGS, weight_decay=0.1, learning_rate=1e-2, **changes)
    state = trainer.init(KEY, module, SPEC, settings)
    ((trained, _),) = history(module, x, Labels(classes), settings)

    @jax.jit
    def one_step(params):
        def loss(params):
            logits = module.apply({"params": params}, x)
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, classes).mean()

        optimizer = optax.adamw(1e-2, weight_decay=0.1)
        updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    expected = one_step(state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), trained.params, expected)


def test_a_loss_that_is_not_finite_is_refused(module, points):
    x, labels = points
    assert "the loss is nan in epoch 1; lower" in message_of(history, module, x * np.float32(np.nan), labels)


def test_fewer_examples_than_devices_are_refused(module, points):
    x, labels = points
    message = message_of(history, module, x[:1], Labels(labels.classes[:1]))
    assert message == "training: 1 examples are fewer than the 2 devices; lower --cpu_devices"
    message = message_of(trainer.epoch_size, dataclasses.replace(SETTINGS, batch_size=1), 100)
    assert message == "batch_size: 1 is below the number of devices, 2"


def test_a_module_that_does_not_fit_is_refused():
    message = message_of(trainer.init, KEY, models.create("cnn", SPEC), SPEC, SETTINGS)
    assert message.startswith("model: CNN does not take inputs of shape (6,): ")


def test_a_module_without_parameters_is_refused():
    class Constant(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.zeros((len(x), 3))

    message = message_of(trainer.init, KEY, Constant(), SPEC, SETTINGS)
    assert message == "model: Constant has no parameters to train"


class Normalised(nn.Module):
    """Batch norm of the inputs, then a linear layer."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))


@pytest.mark.parametrize("bytes_in_call", [1, trainer._CALL_BYTES])
def test_the_last_epoch_settles_the_statistics_of_batch_norm(bytes_in_call, monkeypatch):
    """The running mean follows the means of the batches. Its values after the last epoch's steps are averaged."""
    monkeypatch.setattr(trainer, "_CALL_BYTES", bytes_in_call)
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    settings = dataclasses.replace(SETTINGS, epochs=2, batch_size=20, validation_fraction=0.0)
    states = history(Normalised(), x, Labels(np.zeros(60, np.int32)), settings)
    keys, running = random_keys.training_keys(KEY), [np.zeros(6)]
    rows = shuffled(keys.split, 60)
    for epoch in range(2):
        for step in rows[shuffled(jax.random.fold_in(keys.order, epoch), 60)].reshape(3, 20):
            running.append(0.9 * running[-1] + 0.1 * x[step].mean(axis=0))
    found = [state.model_state["batch_stats"]["BatchNorm_0"]["mean"] for state, _ in states]
    np.testing.assert_allclose(found[0], running[3], atol=1e-6)
    np.testing.assert_allclose(found[1], np.mean(running[4:], axis=0), atol=1e-6)
