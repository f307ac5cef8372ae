"""A live PyTorch module as a teacher, compared with the same network converted to JAX."""

import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax import models
from cake_jax.teachers import from_torch, from_torch_weights
from cake_jax.types import DataSpec

torch = pytest.importorskip("torch")
networks = pytest.importorskip("torch_networks")

IMAGES = DataSpec((16, 16, 3), 4)
OPTIONS = {"blocks": (1, 1), "features": (8, 16)}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return networks.train(networks.ResNet((1, 1), (8, 16), 4), 16, 4)


@pytest.fixture(scope="module")
def live(network):
    return from_torch(network, IMAGES)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32)


def log_probability(teacher, x):
    return jax.nn.log_softmax(teacher(x))[..., 1].sum()


gradient = jax.jit(jax.grad(log_probability, argnums=1))


def assert_close(ours, theirs):
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-4 * np.abs(theirs).max()


def test_logits_and_gradients_equal_pytorch_and_the_converted_network(network, live, x):
    converted = from_torch_weights(network.state_dict(), "resnet18", IMAGES, OPTIONS)
    np.testing.assert_array_equal(live(x), networks.logits(network, x))
    assert_close(live(x), jax.jit(lambda teacher, x: teacher(x))(converted, x))
    cotangent = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    weighted = jax.grad(lambda x: (live(x) * cotangent).sum())(x)
    np.testing.assert_array_equal(weighted, networks.input_gradient(network, x, cotangent))
    assert_close(gradient(live, x), gradient(converted, x))


def test_loops_and_maps(live, x):
    one_by_one = np.concatenate([live(row[None]) for row in x])
    np.testing.assert_allclose(jax.vmap(live)(x[:, None])[:, 0], one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.lax.map(live, x[:, None])[:, 0], one_by_one, rtol=1e-4, atol=1e-5)

    def steps(x):
        return jax.lax.scan(lambda x, _: (x - 0.1 * jax.grad(log_probability, 1)(live, x), None), x, None, length=3)[0]

    expected = x
    for _ in range(3):
        expected = expected - 0.1 * np.asarray(gradient(live, expected))
    assert np.abs(expected - x).max() > 1e-3
    np.testing.assert_allclose(jax.jit(steps)(x), expected, rtol=1e-4, atol=1e-5)
    halves = x.reshape(2, 3, *x.shape[1:])
    np.testing.assert_allclose(jax.pmap(steps)(halves).reshape(x.shape), expected, rtol=1e-4, atol=1e-5)


def test_large_batches_on_all_devices_do_not_deadlock(live):
    """JAX copies inputs above 100 kB in the background. Here as many devices run as JAX may have threads."""
    x = np.zeros((2, 200, 16, 16, 3), np.float32)

    def steps(x):
        return jax.lax.scan(lambda x, _: (jax.grad(log_probability, 1)(live, x), None), x, None, length=3)[0]

    thread = threading.Thread(target=lambda: jax.pmap(steps)(x).block_until_ready(), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_vectors_and_other_float_types(x):
    spec, linear = DataSpec((5,), 3), torch.nn.Linear(5, 3).double()
    teacher, x = from_torch(linear, spec), x[:, 0, :5, 0]
    expected = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert teacher(x).dtype == jnp.float32
    np.testing.assert_allclose(teacher(x), expected, rtol=1e-5, atol=1e-5)
    assert teacher(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32


def test_module_is_in_evaluation_mode_and_keeps_its_state(network, live, x):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.grad = None
    np.testing.assert_array_equal(live(x), live(x))
    gradient(live, x)
    assert not network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_apply_fn_is_equal_only_for_the_same_module(network, live):
    assert from_torch(network, IMAGES).apply_fn == live.apply_fn
    assert hash(from_torch(network, IMAGES).apply_fn) == hash(live.apply_fn)
    other = networks.ResNet((1, 1), (8, 16), 4)
    assert from_torch(other, IMAGES).apply_fn != live.apply_fn


class Failing(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("a first line\nand a second")


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        (Failing(), IMAGES, "Failing fails on inputs of shape (2, 16, 16, 3): a first line"),
        (networks.ResNet((1, 1), (8, 16), 5), IMAGES, "(2, 5) for 2 inputs, not the logits (2, 4)"),
        (networks.ResNet((1, 1), (8, 16), 4), DataSpec((16, 16, 1), 4), "fails on inputs"),
        (
            torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(768, 4).apply(lambda m: m.bias.data.fill_(torch.nan))
            ),
            IMAGES,
            "not finite",
        ),
        (lambda x: x, IMAGES, "function is not a torch.nn.Module"),
    ],
    ids=["failing", "classes", "channels", "NaN", "function"],
)
def test_module_that_does_not_fit_is_refused(module, spec, message):
    assert message in message_of(from_torch, module, spec)


def test_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install torch" in message_of(from_torch, None, IMAGES)


def test_student_learns_from_a_live_teacher(live):
    settings = cake_jax.SynthesisSettings(num_batches=2, batch_size=32, num_groups=4, num_steps=8)
    samples = cake_jax.synthesize(jax.random.key(0), live, IMAGES, settings)
    np.testing.assert_allclose(samples.logits, live(samples.x), rtol=1e-4, atol=1e-5)
    training = cake_jax.TrainSettings(epochs=30, batch_size=16, validation_fraction=0)
    student = cake_jax.distill(jax.random.key(1), models.create("mlp", IMAGES), samples, training)
    assert cake_jax.evaluate(student, live, samples.x, None)["agreement"] > 0.8
