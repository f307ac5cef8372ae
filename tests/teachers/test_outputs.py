"""What classifiers return: logits, probabilities, one output for two classes, objects and tuples."""

import types
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax import teachers
from cake_jax.teachers import from_function, from_linen, from_nnx, from_torch
from cake_jax.teachers.outputs import to_logits
from cake_jax.types import DataSpec

SPEC, PAIR = DataSpec((4,), 3), DataSpec((4,), 2)
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LOGITS = X @ WEIGHTS
REFUSAL = "teacher: its outputs are probabilities, not logits: they are not negative and sum to 1; pass outputs="


class Result(NamedTuple):
    loss: jax.Array
    logits: jax.Array


@jax.tree_util.register_pytree_node_class
class Output(types.SimpleNamespace):
    """An object with `.logits`, as language models return it."""

    def tree_flatten(self):
        return (self.logits,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(logits=leaves[0])


class Softmax(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.softmax(nn.Dense(3)(x))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_probabilities_become_their_logarithms():
    teacher = from_function(lambda x: jax.nn.softmax(x @ WEIGHTS), SPEC, outputs="probabilities")
    np.testing.assert_allclose(teacher.predict(X), log_softmax(LOGITS), rtol=1e-4, atol=1e-5)
    certain = to_logits(np.array([[1.0, 0.0, 0.0]], np.float32), 3, "probabilities")
    assert np.isfinite(certain).all()
    assert certain[0, 1] < -60


def test_log_probabilities_are_logits():
    teacher = from_function(lambda x: jax.nn.log_softmax(x @ WEIGHTS), SPEC)
    np.testing.assert_allclose(teacher.predict(X), log_softmax(LOGITS), rtol=1e-4, atol=1e-5)


def test_probabilities_are_not_taken_for_logits():
    assert message_of(from_function, lambda x: jax.nn.softmax(x @ WEIGHTS), SPEC).startswith(REFUSAL)
    module = Softmax()
    variables = module.init(jax.random.key(0), X)
    assert message_of(from_linen, module, variables, SPEC).startswith(REFUSAL)
    teacher = from_linen(module, variables, SPEC, outputs="probabilities")
    dense = variables["params"]["Dense_0"]
    np.testing.assert_allclose(teacher.predict(X), log_softmax(X @ dense["kernel"]), rtol=1e-4, atol=1e-5)


def test_logits_that_are_not_negative_are_no_probabilities():
    teacher = from_function(lambda x: jnp.abs(x @ WEIGHTS), SPEC)
    np.testing.assert_allclose(teacher.predict(X), np.abs(LOGITS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, jnp.zeros(3)),
        lambda logits: [logits],
        lambda logits: {"logits": logits, "features": jnp.zeros(3)},
        lambda logits: Result(jnp.zeros(()), logits),
        lambda logits: Output(logits=logits),
    ],
    ids=["tuple", "list", "dict", "named tuple", "object"],
)
def test_the_logits_are_found_in_what_a_model_returns(wrap):
    teacher = from_function(lambda x: wrap(x @ WEIGHTS), SPEC)
    np.testing.assert_allclose(teacher.predict(X), LOGITS, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_output_of_two_classes(shape):
    """A logit z of class 1 against 0 has the softmax sigmoid(z). The logits of probabilities have it too."""
    z = X @ WEIGHTS[:, 0]
    logit = from_function(lambda x: (x @ WEIGHTS[:, 0]).reshape(shape), PAIR)
    np.testing.assert_allclose(logit.predict(X), np.stack([np.zeros(6), z], axis=1), rtol=1e-4, atol=1e-5)
    probability = from_function(
        lambda x: jax.nn.sigmoid(x @ WEIGHTS[:, 0]).reshape(shape), PAIR, outputs="probabilities"
    )
    np.testing.assert_allclose(probability.predict(X) @ [-1, 1], z, rtol=1e-3, atol=1e-4)
    assert "returns (2" in message_of(from_function, lambda x: (x @ WEIGHTS[:, 0]).reshape(shape), SPEC)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: jax.lax.stop_gradient(x @ WEIGHTS), "zero"),
        (lambda x: jnp.round(x @ WEIGHTS), "zero"),
        (lambda x: jnp.sqrt(jnp.maximum(x @ WEIGHTS, 0.0)), "not finite"),
        (
            lambda x: jax.pure_callback(lambda x: x @ WEIGHTS, jax.ShapeDtypeStruct((len(x), 3), np.float32), x),
            "missing: ",
        ),
    ],
    ids=["stopped", "steps", "infinite", "callback"],
)
def test_a_teacher_without_a_gradient_is_refused(function, fault):
    message = message_of(from_function, function, SPEC)
    assert message.startswith(f"teacher: its gradient with respect to the input is {fault}")
    assert "cake_jax.BlackBox" in message


def test_a_function_needs_a_gradient_only_for_methods_that_take_one():
    settings = cake_jax.SynthesisSettings(num_batches=1, batch_size=6, num_groups=3, num_steps=1)

    def steps(x):
        return jnp.round(x @ WEIGHTS)

    assert "gradient" in message_of(cake_jax.synthesize, jax.random.key(0), steps, SPEC, settings)
    samples = cake_jax.synthesize(jax.random.key(0), steps, SPEC, settings, method="noise")
    np.testing.assert_allclose(samples.logits, np.round(samples.x @ WEIGHTS), atol=1e-4)


def test_outputs_have_known_names():
    message = message_of(from_function, lambda x: x @ WEIGHTS, SPEC, outputs="probability")
    assert message == "outputs: 'probability' is not one of logits, probabilities; did you mean probabilities?"


def test_an_nnx_module_may_return_probabilities():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return nnx.softmax(self.linear(x))

    network = Network()
    assert message_of(from_nnx, network, SPEC).startswith(REFUSAL)
    teacher = from_nnx(network, SPEC, outputs="probabilities")
    np.testing.assert_allclose(teacher.predict(X), np.log(network(X)), rtol=1e-4, atol=1e-5)


def test_modules_of_pytorch():
    torch = pytest.importorskip("torch")
    linear, single = torch.nn.Linear(4, 3), torch.nn.Linear(4, 1)
    expected = linear(torch.from_numpy(X)).detach().numpy()

    def module(function):
        made = torch.nn.Module()
        made.linear, made.single, made.forward = linear, single, lambda x: function(x)
        return made

    for function in (
        lambda x: (linear(x), x),
        lambda x: types.SimpleNamespace(logits=linear(x)),
        lambda x: {"logits": linear(x)},
    ):
        np.testing.assert_allclose(from_torch(module(function), SPEC).predict(X), expected, rtol=1e-4, atol=1e-5)
    softmax = module(lambda x: linear(x).softmax(dim=1))
    assert message_of(from_torch, softmax, SPEC).startswith(REFUSAL)
    teacher = from_torch(softmax, SPEC, outputs="probabilities")
    np.testing.assert_allclose(teacher.predict(X), log_softmax(expected), rtol=1e-4, atol=1e-5)
    z = single(torch.from_numpy(X)).detach().numpy()[:, 0]
    one = from_torch(module(single), PAIR)
    np.testing.assert_allclose(one.predict(X), np.stack([np.zeros(6), z], axis=1), rtol=1e-4, atol=1e-5)
    sigmoid = from_torch(module(lambda x: single(x).sigmoid()), PAIR, outputs="probabilities")
    np.testing.assert_allclose(sigmoid.predict(X) @ [-1, 1], z, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        frozen = module(torch.no_grad()(lambda x: linear(x)))
    message = message_of(from_torch, frozen, SPEC)
    assert message.startswith(
        "teacher: Module has no gradient with respect to its input, perhaps because it runs under"
    )
    assert teachers.as_queryable(teacher, SPEC) is teacher
