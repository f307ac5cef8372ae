"""Equinox modules as teachers and as students."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax import cost
from cake_jax.models.equinox_adapter import split
from cake_jax.teachers import from_equinox, from_function
from cake_jax.training import from_logits, programs, trainer
from cake_jax.types import DataSpec, SampleBatch

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


def test_arrays_of_numpy_in_a_module_are_weights(eqx, x, samples):
    class Net(eqx.Module):
        weight: np.ndarray
        order: np.ndarray

        def __call__(self, x):
            return x[self.order] @ self.weight

    module = Net(np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32), np.array([2, 0, 1]))
    teacher = from_equinox(module, SPEC)
    np.testing.assert_allclose(teacher(x), x[:, module.order] @ module.weight, rtol=1e-5, atol=1e-6)
    assert hash(teacher.apply_fn) == hash(from_equinox(module, SPEC).apply_fn)
    assert teacher.num_params == 6
    settings = cake_jax.TrainSettings(epochs=1, batch_size=64, validation_fraction=0)
    student = cake_jax.distill(jax.random.key(0), module, samples, settings)
    again = student.module.merge(student.variables)
    assert np.abs(again.weight - module.weight).max() > 1e-3
    np.testing.assert_array_equal(again.order, module.order)


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


def with_dropout(eqx, seed=0, width=32):
    """A hidden layer with dropout, whose key is an argument without default."""

    class Net(eqx.Module):
        layers: list
        dropout: eqx.nn.Dropout

        def __init__(self):
            first, second = jax.random.split(jax.random.key(seed))
            self.layers = [eqx.nn.Linear(3, width, key=first), eqx.nn.Linear(width, 2, key=second)]
            self.dropout = eqx.nn.Dropout(0.2)

        def __call__(self, x, key):
            return self.layers[1](self.dropout(jax.nn.relu(self.layers[0](x)), key=key))

    return Net()


def target_logits(x):
    return 3 * jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], -1)


@pytest.fixture(scope="module")
def samples():
    x, number = np.random.default_rng(1).normal(size=(512, 3)).astype(np.float32), np.arange(512, dtype=np.int32)
    return SampleBatch(x, np.asarray(target_logits(x)), number % 2, np.ones(512, np.float32), number)


@pytest.mark.parametrize("batched", [False, True])
def test_dropout_draws_from_the_given_keys(eqx, batched):
    module = eqx.nn.Dropout(0.5)
    adapter, variables = split(eqx.nn.Sequential([module, eqx.nn.Identity()]), batched=batched)
    ones, keys = jnp.ones((2, 50)), jax.random.split(jax.random.key(3), 2)
    np.testing.assert_array_equal(adapter.apply(variables, ones), ones)
    dropped = np.asarray(adapter.apply(variables, ones, train=True, keys=keys))
    assert set(dropped.ravel()) == {0.0, 2.0}
    assert 0.2 < np.mean(dropped[0] == dropped[1]) < 0.8
    other = np.asarray(adapter.apply(variables, ones, train=True, keys=keys[::-1]))
    assert 0.3 < np.mean(dropped == other) < 0.7
    if not batched:
        np.testing.assert_array_equal(other, dropped[::-1])


def test_the_mode_of_a_call_and_of_fields(eqx, x):
    class Modes(eqx.Module):
        training: bool
        scale: float
        inference: jax.Array

        def __call__(self, x, *, deterministic=False):
            return jnp.array([self.training, self.scale, self.inference, deterministic])

    adapter, variables = split(Modes(True, 2.0, jnp.array(False)))
    np.testing.assert_array_equal(adapter.apply(variables, x)[0], [0, 2, 1, 1])
    np.testing.assert_array_equal(adapter.apply(variables, x, train=True)[0], [1, 2, 0, 0])


def test_student_with_dropout_learns_from_its_module_s_weights(eqx, samples):
    module = with_dropout(eqx)
    settings = cake_jax.TrainSettings(epochs=40, batch_size=64, validation_fraction=0.1)
    student = cake_jax.distill(jax.random.key(0), module, samples, settings)
    assert cake_jax.evaluate(student, target_logits, samples.x, None)["agreement"] > 0.9
    again = student.module.merge(student.variables)
    assert type(again) is type(module)
    np.testing.assert_allclose(
        jax.vmap(lambda x: again(x, None))(samples.x), student.predict(samples.x), rtol=1e-5, atol=1e-5
    )
    assert np.abs(again.layers[0].weight - module.layers[0].weight).max() > 1e-3
    settings = cake_jax.TrainSettings(epochs=1, learning_rate=1e-9, weight_decay=0, validation_fraction=0)
    student = cake_jax.distill(jax.random.key(0), module, samples, settings)
    first = jax.vmap(lambda x: eqx.nn.inference_mode(module)(x, None))(samples.x)
    np.testing.assert_allclose(student.predict(samples.x), first, rtol=1e-4, atol=1e-5)


def test_masks_depend_neither_on_chunks_nor_on_an_interruption(eqx, samples, monkeypatch):
    """The key of an example draws its mask, so that one example at a time draws the same as a whole batch."""
    (adapter, variables), labels = split(with_dropout(eqx)), from_logits(samples.logits)
    settings = cake_jax.TrainSettings(epochs=4, batch_size=64, schedule="constant")

    def history(state=None):
        programs.training_program.cache_clear()
        state = state or trainer.init(jax.random.key(0), adapter, SPEC, settings, variables)
        options = {"loss": cake_jax.DistillationLoss()}
        return list(trainer.epochs(jax.random.key(1), state, adapter, SPEC, samples.x, labels, settings, **options))

    whole = history()
    jax.tree.map(np.testing.assert_array_equal, history(whole[1][0])[-1], whole[-1])
    monkeypatch.setattr(programs, "_SMALLEST_CHUNK", 1)
    monkeypatch.setattr(cost, "CORE_FLOPS", 1.0)
    parts = history()[-1]
    programs.training_program.cache_clear()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts[0], whole[-1][0])


def test_images_of_a_student_have_their_channels_first(eqx):
    k = jax.random.key(0)
    conv = eqx.nn.Sequential([eqx.nn.Conv2d(2, 4, 3, key=k), eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(48, 2, key=k)])
    start = from_equinox(conv, IMAGES, channels_first=True)
    x, number = np.random.default_rng(1).normal(size=(64, 6, 5, 2)).astype(np.float32), np.arange(64, dtype=np.int32)
    logits = 3 * np.stack([x[:, 2, 2, 0], x[:, 2, 2, 1]], 1)
    batch = SampleBatch(x, logits, number % 2, np.ones(64, np.float32), number)
    settings = cake_jax.TrainSettings(epochs=30, batch_size=32, learning_rate=0.05)
    student = cake_jax.distill(jax.random.key(0), start, batch, settings, spec=IMAGES)
    assert (student.predict(x).argmax(1) == logits.argmax(1)).mean() > 0.9
    np.testing.assert_array_equal(start(x), from_equinox(conv, IMAGES, channels_first=True)(x))


def test_untrainable_student_is_refused(eqx, samples):
    class Normed(eqx.Module):
        norm: eqx.nn.BatchNorm
        linear: eqx.nn.Linear

        def __init__(self):
            self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
            self.linear = eqx.nn.Linear(3, 2, key=jax.random.key(0))

        def __call__(self, x, state):
            x, state = self.norm(x, state)
            return self.linear(x), state

    class Keyless(eqx.Module):
        dropout: eqx.nn.Dropout
        linear: eqx.nn.Linear

        def __call__(self, x):
            return self.linear(self.dropout(x))

    def message(model):
        return message_of(cake_jax.distill, jax.random.key(0), model, samples)

    module, state = eqx.nn.make_with_state(Normed)()
    assert message(from_equinox(module, SPEC, state=state)) == (
        "model: the state of Normed, such as batch norm's, cannot be trained; "
        "use a module without state, such as one with layer norm, or a Flax module"
    )
    keyless = Keyless(eqx.nn.Dropout(0.5), eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    assert message(keyless).startswith("model: Keyless fails in training mode: Dropout requires a key")
    assert message(from_function(lambda x: x[:, :2], SPEC)) == (
        "model: only a teacher from a Flax or Equinox module with logits can be trained further"
    )
    assert message(eqx.nn.Lambda(lambda x: x[:2])) == "model: Lambda has no parameters to train"
    assert message(np.arange(3)) == "model: an array of shape (3,) cannot be called; pass a Flax or Equinox module"


def test_a_mode_that_is_not_understood_is_refused(eqx):
    class IsEval(eqx.Module):
        def __call__(self, x, is_eval=True):
            return x[:2]

    assert "IsEval.__call__: the argument 'is_eval' is not understood" in message_of(from_equinox, IsEval(), SPEC)
