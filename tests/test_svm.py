"""Support vector machines: their features, their own loss in the trainer, and what they can separate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax import checkpoint, models, train
from cake_jax.data import toy
from cake_jax.models.svm import RBFSVM, LinearSVM, PolynomialSVM
from cake_jax.train import TrainSettings
from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 2)
KEY = jax.random.key(0)
SETTINGS = TrainSettings(epochs=40, batch_size=100, learning_rate=0.3, validation_fraction=0.25, weight_decay=0.0)


def fit(name, points, settings=SETTINGS, spec=SPEC, options=None):
    module = models.create(name, spec, options)
    *_, (state, info) = train.epochs(KEY, train.init(KEY, module, spec, settings), module, spec, *points, settings)
    return module, state, info


def circles():
    x, y = toy._circles(400, 0)
    return np.asarray(x, np.float32), np.asarray(y, np.int32)


def test_polynomial_features_are_powers_of_each_input():
    x = jnp.array([[2.0, -3.0]])
    np.testing.assert_array_equal(PolynomialSVM(2).transform(x), [[2, -3, 4, 9, 8, -27]])


def test_rbf_features_approximate_the_kernel():
    """A kernel of ones on the diagonal gives the features themselves."""
    module = RBFSVM(3_000, num_features=3_000, gamma=0.7)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    variables = jax.jit(module.init)(KEY, x)
    assert {name: leaf.shape for name, leaf in variables["fourier"].items()} == {"omega": (3, 3_000), "phase": (3_000,)}
    params = {"scores": {"kernel": jnp.eye(3_000), "bias": jnp.zeros(3_000)}}
    features = module.apply({**variables, "params": params}, x)
    squared = np.square(x[:, None] - x[None]).sum(axis=-1)
    np.testing.assert_allclose(features @ features.T, np.exp(-0.7 * squared), atol=0.08)


def test_loss_by_hand():
    """Kernel of norm 5, C = 2, mini-batch of 4: the hinge losses and 2.5 each."""
    params = {"scores": {"kernel": jnp.array([[3.0, 0.0], [0.0, -4.0]]), "bias": jnp.array([100.0, 0.0])}}
    logits, labels = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, 1])
    np.testing.assert_allclose(LinearSVM(2, penalty=2.0).class_loss(params, logits, labels, 4), [2.5, 1.5 + 2.5])


def test_gradient_of_the_norm_is_finite_at_zero():
    params = {"scores": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    gradient = jax.grad(lambda p: LinearSVM(2).class_loss(p, jnp.zeros((1, 2)), jnp.zeros(1, int), 1).sum())(params)
    np.testing.assert_array_equal(gradient["scores"]["kernel"], np.zeros((3, 2)))


def test_a_step_on_classes_descends_the_models_own_loss():
    """N is the mini-batch on all devices, so the devices' mean is the loss of the whole mini-batch."""
    x, y = circles()
    settings = dataclasses.replace(
        SETTINGS, epochs=1, batch_size=400, learning_rate=0.1, schedule="constant", validation_fraction=0.0
    )
    module = models.create("svm_linear", SPEC, {"penalty": 50.0})
    state = train.init(KEY, module, SPEC, settings)

    def loss(params):
        z = x @ params["scores"]["kernel"] + params["scores"]["bias"]
        hinge = jnp.maximum(0, 1 - z[jnp.arange(400), y] + z[jnp.arange(400), 1 - y]) / 2
        return hinge.mean() + 50.0 * jnp.sqrt(jnp.square(params["scores"]["kernel"]).sum()) / 400

    value, gradient = jax.value_and_grad(loss)(state.params)
    ((trained, info),) = train.epochs(KEY, state, module, SPEC, x, y, settings)
    assert info.loss == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained.params, expected)


def test_validation_has_the_penalty_of_a_training_step():
    x, y = circles()
    settings = dataclasses.replace(SETTINGS, epochs=1)
    module, state, info = fit("svm_linear", (x, y), settings, options={"penalty": 50.0})
    held_out = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 400))[:100]
    logits = train.as_model(module, state, SPEC)(x[held_out])
    expected = module.class_loss(state.params, logits, jnp.asarray(y[held_out]), 100).mean()
    assert info.validation_loss == pytest.approx(float(expected), rel=1e-5)


def test_on_logits_the_distillation_loss_counts():
    """C would push the kernel to zero if the loss on classes were used."""
    x, _ = circles()
    logits = np.stack([5 * x[:, 0], 5 * x[:, 1]], axis=1)
    settings = dataclasses.replace(train.DISTILLATION, epochs=40, batch_size=100, learning_rate=0.5, weight_decay=0.0)
    module, state, _ = fit("svm_linear", (x, logits), settings, options={"penalty": 1e4})
    agreement = np.mean(np.argmax(train.as_model(module, state, SPEC)(x), axis=1) == logits.argmax(axis=1))
    assert agreement > 0.97


def test_circles_are_separated_by_all_but_the_linear_machine():
    """Squares make circles linear; a line through the middle is right half the time."""
    accuracy = {name: fit(name, circles())[2].validation_accuracy for name in ("svm_linear", "svm_poly", "svm_rbf")}
    assert accuracy["svm_linear"] < 0.7
    assert min(accuracy["svm_poly"], accuracy["svm_rbf"]) > 0.95


def test_random_features_stay_and_are_saved(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, weight_decay=0.1)
    module, state, _ = fit("svm_rbf", circles(), settings)
    start = train.init(KEY, module, SPEC, settings)
    jax.tree.map(np.testing.assert_array_equal, state.model_state, start.model_state)
    assert set(state.model_state) == {"fourier"}
    model = train.as_model(module, state, SPEC)
    checkpoint.save_model(tmp_path, model, "svm_rbf", {})
    x = circles()[0][:5]
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path)(x), model(x))
