"""A live PyTorch module as a teacher, beside the same network converted."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cake_jax
from cake_jax import CakeError, models
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


def energy(teacher, x):
    return jax.nn.log_softmax(teacher(x))[..., 1].sum()


gradient = jax.jit(jax.grad(energy, argnums=1))


def assert_close(ours, theirs):
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-4 * np.abs(theirs).max()


def test_same_logits_and_gradient_as_pytorch_and_as_the_converted_network(network, live, x):
    converted = from_torch_weights(network.state_dict(), "resnet18", IMAGES, OPTIONS)
    np.testing.assert_array_equal(live(x), networks.logits(network, x))
    assert_close(live(x), jax.jit(lambda teacher, x: teacher(x))(converted, x))
    cotangent = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    weighted = jax.grad(lambda x: (live(x) * cotangent).sum())(x)
    np.testing.assert_array_equal(weighted, networks.input_gradient(network, x, cotangent))
    assert_close(gradient(live, x), gradient(converted, x))


def test_inside_loops_and_maps(live, x):
    one_by_one = np.concatenate([live(row[None]) for row in x])
    np.testing.assert_allclose(jax.vmap(live)(x[:, None])[:, 0], one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.lax.map(live, x[:, None])[:, 0], one_by_one, rtol=1e-4, atol=1e-5)

    def steps(x):
        return jax.lax.scan(lambda x, _: (x - 0.1 * jax.grad(energy, 1)(live, x), None), x, None, length=3)[0]

    expected = x
    for _ in range(3):
        expected = expected - 0.1 * np.asarray(gradient(live, expected))
    assert np.abs(expected - x).max() > 1e-3
    np.testing.assert_allclose(jax.jit(steps)(x), expected, rtol=1e-4, atol=1e-5)
    halves = x.reshape(2, 3, *x.shape[1:])
    np.testing.assert_allclose(jax.pmap(steps)(halves).reshape(x.shape), expected, rtol=1e-4, atol=1e-5)


def test_large_batches_on_two_devices_do_not_wait_for_each_other(live):
    """Inputs above 100 kB, which JAX copies in the background, on as many devices as it may have threads."""
    x = np.zeros((2, 200, 16, 16, 3), np.float32)
    run = jax.pmap(lambda x: jax.lax.scan(lambda x, _: (jax.grad(energy, 1)(live, x), None), x, None, length=3)[0])
    done = threading.Thread(target=lambda: run(x).block_until_ready(), daemon=True)
    done.start()
    done.join(60)
    assert not done.is_alive()


def test_vectors_and_other_types(x):
    spec, linear = DataSpec((5,), 3), torch.nn.Linear(5, 3).double()
    teacher, x = from_torch(linear, spec), x[:, 0, :5, 0]
    expected = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert teacher(x).dtype == jnp.float32
    np.testing.assert_allclose(teacher(x), expected, rtol=1e-5, atol=1e-5)
    assert teacher(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32


def test_evaluation_mode_and_no_gradients_left(network, live, x):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.grad = None
    np.testing.assert_array_equal(live(x), live(x))
    gradient(live, x)
    assert not network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_equal_for_the_same_module_alone(network, live):
    assert from_torch(network, IMAGES).apply_fn == live.apply_fn
    assert hash(from_torch(network, IMAGES).apply_fn) == hash(live.apply_fn)
    other = networks.ResNet((1, 1), (8, 16), 4)
    assert from_torch(other, IMAGES).apply_fn != live.apply_fn


class Failing(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("no more of this\nand a second line")


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        (Failing(), IMAGES, "Failing fails on inputs of shape .*: no more of this$"),
        (networks.ResNet((1, 1), (8, 16), 5), IMAGES, r"\(2, 5\) for 2 inputs, not the logits \(2, 4\)"),
        (networks.ResNet((1, 1), (8, 16), 4), DataSpec((16, 16, 1), 4), "fails on inputs"),
        (
            torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(768, 4).apply(lambda m: m.bias.data.fill_(torch.nan))
            ),
            IMAGES,
            "not finite",
        ),
        (lambda x: x, IMAGES, r"no torch\.nn\.Module"),
    ],
    ids=["failing", "classes", "channels", "NaN", "function"],
)
def test_a_module_that_does_not_fit(module, spec, message):
    with pytest.raises(CakeError, match=message) as caught:
        from_torch(module, spec)
    assert "\n" not in str(caught.value)


def test_without_pytorch(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(CakeError, match="pip install torch"):
        from_torch(None, IMAGES)


def test_a_distillation(live):
    settings = cake_jax.SynthesisSettings(num_batches=2, batch_size=32, num_groups=4, num_steps=8)
    samples = cake_jax.synthesize(jax.random.key(0), live, IMAGES, settings)
    np.testing.assert_allclose(samples.logits, live(samples.x), rtol=1e-4, atol=1e-5)
    training = cake_jax.TrainSettings(epochs=30, batch_size=16, loss=cake_jax.DistillationLoss(), validation_fraction=0)
    student = cake_jax.distill(jax.random.key(1), models.create("mlp", IMAGES), samples, training)
    assert cake_jax.evaluate(student, live, samples.x, None)["agreement"] > 0.8
