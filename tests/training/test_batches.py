"""Batches that are made on the device: views of the stored examples, and labels that a teacher gives them there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import KEY, SETTINGS, SPEC, history, shuffled

from cake_jax import models, parallel, random_keys
from cake_jax.teachers import from_linen
from cake_jax.training import DistillationLoss, Labels, classification_loss, from_logits, trainer
from cake_jax.types import DataSpec

NO_VALIDATION = dataclasses.replace(SETTINGS, validation_fraction=0.0)


def identity_view(example_keys, x, labels, teacher):
    """The stored inputs with the teacher's labels."""
    return x, from_logits(teacher(x))


def noisy_view(example_keys, x, labels, teacher):
    """Each input plus noise from its own key, with the teacher's labels of the sum."""
    x = x + 0.5 * jax.vmap(lambda key: jax.random.normal(key, SPEC.shape))(example_keys)
    return x, from_logits(teacher(x))


def noise_alone(example_keys, x, labels, context):
    """Inputs that depend on the keys alone."""
    return jax.vmap(lambda key: jax.random.normal(key, SPEC.shape))(example_keys), labels


def same_weights(one, other, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one.params, other.params)


@pytest.fixture(scope="module")
def teacher_module():
    return models.create("mlp", SPEC, {"width": 5, "num_hidden": 0})


@pytest.fixture(scope="module")
def teacher(teacher_module):
    return from_linen(teacher_module, teacher_module.init(jax.random.key(3), jnp.zeros((1, 6))), SPEC)


def test_labels_made_in_the_step_equal_stored_labels(module, points, teacher):
    x, unused = points
    stored = history(module, x, from_logits(teacher.predict(x)), NO_VALIDATION, loss=DistillationLoss())
    wrong = unused._replace(logits=np.zeros((205, 3), np.float32))
    options = {"make_batch": identity_view, "context": teacher}
    made = history(module, x, wrong, NO_VALIDATION, loss=DistillationLoss(), **options)
    same_weights(made[-1][0], stored[-1][0])
    assert made[-1][1].loss == pytest.approx(stored[-1][1].loss, rel=1e-5)
    assert made[-1][1].accuracy == pytest.approx(stored[-1][1].accuracy)


def test_views_equal_a_loop_by_hand(module, points, teacher):
    """2 epochs of 2 steps. The key of an example belongs to the epoch, the step and its place in the batch."""
    x, labels = points
    settings = dataclasses.replace(NO_VALIDATION, epochs=2, batch_size=100, momentum=0.0, weight_decay=0.0)
    options = {"make_batch": noisy_view, "context": teacher}
    trained, _ = history(module, x, labels, settings, loss=DistillationLoss(), **options)[-1]
    training_keys = random_keys.training_keys(KEY)
    examples = shuffled(training_keys.split, 205)
    params = jax.tree.map(np.asarray, trainer.init(KEY, module, SPEC, settings).params)

    @jax.jit
    def gradient(params, key, x):
        example_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(100))
        x, labels = noisy_view(example_keys, x, None, teacher)
        return jax.grad(lambda p: DistillationLoss()(module.apply({"params": p}, x), labels).mean())(params)

    for epoch in range(2):
        order_key, epoch_key = (jax.random.fold_in(key, epoch) for key in training_keys[1:])
        order = examples[shuffled(order_key, 205)]
        for step, batch in enumerate(order[:200].reshape(2, 100)):
            step_gradient = jax.device_get(gradient(params, jax.random.fold_in(epoch_key, step), x[batch]))
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, step_gradient)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), trained.params, params)


def test_validation_uses_the_stored_examples(module, points, teacher):
    x, labels = points
    labels = from_logits(teacher.predict(x))
    options = {"make_batch": noisy_view, "context": teacher}
    state, info = history(module, x, labels, loss=DistillationLoss(), **options)[-1]
    held_out = shuffled(random_keys.training_keys(KEY).split, 205)[:41]
    logits = trainer.as_model(module, state, SPEC).predict(x[held_out])
    loss = DistillationLoss()(logits, from_logits(labels.logits[held_out])).mean()
    assert info.validation_loss == pytest.approx(float(loss), rel=1e-5)


def test_another_teacher_compiles_nothing(module, points, teacher, teacher_module):
    traced = []

    def view(example_keys, x, labels, teacher):
        traced.append(x)
        return identity_view(example_keys, x, labels, teacher)

    other = from_linen(teacher_module, teacher_module.init(jax.random.key(4), jnp.zeros((1, 6))), SPEC)
    states, counts = [], []
    for context in (teacher, other):
        options = {"loss": DistillationLoss(), "make_batch": view, "context": context}
        states.append(history(module, *points, NO_VALIDATION, **options)[-1][0])
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), states[0].params, states[1].params)
    assert min(jax.tree.leaves(differences)) > 1e-3


def test_keys_do_not_depend_on_the_number_of_devices(module, points, monkeypatch):
    two, _ = history(module, *points, make_batch=noise_alone)[-1]
    monkeypatch.setattr(parallel, "total_device_count", lambda: 1)
    monkeypatch.setattr(parallel, "own_devices", lambda: [0])
    one, _ = history(module, *points, make_batch=noise_alone)[-1]
    same_weights(one, two)


def test_each_example_of_each_step_has_its_own_key(module, points):
    """3 epochs of 2 steps with 2 examples."""
    seen = []

    def watched(example_keys, x, labels, context):
        jax.debug.callback(lambda data: seen.extend(map(tuple, data.tolist())), jax.random.key_data(example_keys))
        return x, labels

    x, labels = points
    settings = dataclasses.replace(NO_VALIDATION, epochs=3, batch_size=2)
    history(module, x[:4], Labels(labels.classes[:4]), settings, make_batch=watched)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 12


def test_a_given_function_takes_the_place_of_augmentation():
    spec = DataSpec((4, 4, 1), 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4, 4, 1)).astype(np.float32)
    labels = from_logits(rng.normal(size=(40, 3)).astype(np.float32))
    module = models.create("logistic_regression", spec)

    def weights(augment, make_batch):
        settings = dataclasses.replace(NO_VALIDATION, epochs=1, augment=augment)
        state = trainer.init(KEY, module, spec, settings)
        options = {"loss": classification_loss, "make_batch": make_batch}
        ((trained, _),) = trainer.epochs(KEY, state, module, spec, x, labels, settings, **options)
        return trained.params["Dense_0"]["kernel"]

    plain = weights((), None)
    np.testing.assert_allclose(weights(("flip",), lambda keys, x, labels, context: (x, labels)), plain, atol=1e-6)
    assert np.abs(weights(("flip",), None) - plain).max() > 1e-3
