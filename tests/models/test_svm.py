"""Support vector machines: features, the loss on classes in the trainer, and what they can separate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

from cake_jax import models
from cake_jax.models.svm import RBFSVM, LinearSVM, PolynomialSVM
from cake_jax.stores import checkpoint
from cake_jax.training import (
    DISTILLATION,
    DistillationLoss,
    Labels,
    TrainSettings,
    classification_loss,
    from_logits,
    trainer,
)
from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 2)
KEY = jax.random.key(0)
SETTINGS = TrainSettings(epochs=40, batch_size=100, learning_rate=0.3, validation_fraction=0.25, weight_decay=0.0)


def fit(name, x, labels, settings=SETTINGS, loss=classification_loss, options=None):
    module = models.create(name, SPEC, options)
    start = trainer.init(KEY, module, SPEC, settings)
    *_, (state, info) = trainer.epochs(KEY, start, module, SPEC, x, labels, settings, loss=loss)
    return module, state, info


def circles():
    x, y = datasets.make_circles(400, noise=0.1, factor=0.4, random_state=0)
    return np.asarray(x, np.float32), Labels(np.asarray(y, np.int32))


def test_polynomial_features_are_powers_of_each_input():
    x = jnp.array([[2.0, -3.0]])
    np.testing.assert_array_equal(PolynomialSVM(2).transform(x), [[2, -3, 4, 9, 8, -27]])


def test_rbf_features_approximate_the_kernel():
    """With the identity as its kernel, the dense layer returns the features themselves."""
    module = RBFSVM(3_000, num_features=3_000, gamma=0.7)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    variables = jax.jit(module.init)(KEY, x)
    assert {name: leaf.shape for name, leaf in variables["fourier"].items()} == {"omega": (3, 3_000), "phase": (3_000,)}
    params = {"scores": {"kernel": jnp.eye(3_000), "bias": jnp.zeros(3_000)}}
    features = module.apply({**variables, "params": params}, x)
    squared = np.square(x[:, None] - x[None]).sum(axis=-1)
    np.testing.assert_allclose(features @ features.T, np.exp(-0.7 * squared), atol=0.08)


def test_class_loss_by_hand():
    """The kernel has norm 5, C is 2, and the mini-batch has 4 examples. So the penalty of each example is 2.5."""
    params = {"scores": {"kernel": jnp.array([[3.0, 0.0], [0.0, -4.0]]), "bias": jnp.array([100.0, 0.0])}}
    logits, labels = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, 1])
    np.testing.assert_allclose(LinearSVM(2, penalty=2.0).class_loss(params, logits, labels, 4), [2.5, 1.5 + 2.5])


def test_class_loss_gradient_is_zero_at_a_zero_kernel():
    params = {"scores": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    gradient = jax.grad(lambda p: LinearSVM(2).class_loss(p, jnp.zeros((1, 2)), jnp.zeros(1, int), 1).sum())(params)
    np.testing.assert_array_equal(gradient["scores"]["kernel"], np.zeros((3, 2)))


def test_training_on_classes_descends_the_class_loss():
    """N is the mini-batch of all devices, so the mean over devices is the loss of the whole mini-batch."""
    x, labels = circles()
    y = labels.classes
    settings = dataclasses.replace(
        SETTINGS, epochs=1, batch_size=400, learning_rate=0.1, schedule="constant", validation_fraction=0.0
    )
    start = trainer.init(KEY, models.create("svm_linear", SPEC, {"penalty": 50.0}), SPEC, settings)

    def loss(params):
        z = x @ params["scores"]["kernel"] + params["scores"]["bias"]
        hinge = jnp.maximum(0, 1 - z[jnp.arange(400), y] + z[jnp.arange(400), 1 - y]) / 2
        return hinge.mean() + 50.0 * jnp.sqrt(jnp.square(params["scores"]["kernel"]).sum()) / 400

    value, gradient = jax.value_and_grad(loss)(start.params)
    _, trained, info = fit("svm_linear", x, labels, settings, options={"penalty": 50.0})
    assert info.loss == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained.params, expected)


def test_validation_loss_has_the_penalty_of_a_training_step():
    x, labels = circles()
    settings = dataclasses.replace(SETTINGS, epochs=1)
    module, state, info = fit("svm_linear", x, labels, settings, options={"penalty": 50.0})
    seed = np.asarray(jax.random.key_data(jax.random.split(KEY)[0]))
    held_out = np.random.default_rng(seed).permutation(400)[:100]
    logits = trainer.as_model(module, state, SPEC)(x[held_out])
    expected = module.class_loss(state.params, logits, jnp.asarray(labels.classes[held_out]), 100).mean()
    assert info.validation_loss == pytest.approx(float(expected), rel=1e-5)


def test_training_on_logits_descends_the_distillation_loss():
    """With the class loss, so large a penalty would pull the kernel to 0."""
    x, _ = circles()
    logits = np.stack([5 * x[:, 0], 5 * x[:, 1]], axis=1)
    settings = dataclasses.replace(DISTILLATION, epochs=40, batch_size=100, learning_rate=0.5, weight_decay=0.0)
    module, state, _ = fit("svm_linear", x, from_logits(logits), settings, DistillationLoss(), {"penalty": 1e4})
    agreement = np.mean(np.argmax(trainer.as_model(module, state, SPEC)(x), axis=1) == logits.argmax(axis=1))
    assert agreement > 0.97


def test_only_the_linear_machine_cannot_separate_circles():
    """Circles are linear in the squares of their coordinates. A line is right for about half of the points."""
    accuracy = {name: fit(name, *circles())[2].validation_accuracy for name in ("svm_linear", "svm_poly", "svm_rbf")}
    assert accuracy["svm_linear"] < 0.7
    assert min(accuracy["svm_poly"], accuracy["svm_rbf"]) > 0.95


def test_random_features_are_not_trained_and_are_saved(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, weight_decay=0.1)
    module, state, _ = fit("svm_rbf", *circles(), settings)
    start = trainer.init(KEY, module, SPEC, settings)
    jax.tree.map(np.testing.assert_array_equal, state.model_state, start.model_state)
    assert set(state.model_state) == {"fourier"}
    model = trainer.as_model(module, state, SPEC)
    checkpoint.save_model(tmp_path, model, "svm_rbf", {})
    x = circles()[0][:5]
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path)(x), model(x))
