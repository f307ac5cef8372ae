"""Flax NNX modules as teachers and as students."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from flax import linen, nnx

import cake_jax
from cake_jax import models
from cake_jax.models.nnx_adapter import NNXModule, split
from cake_jax.teachers import from_nnx
from cake_jax.training import from_logits
from cake_jax.types import DataSpec, SampleBatch

SPEC = DataSpec((3,), 2)
TRACES = []


class Net(nnx.Module):
    """A network with batch norm and optional dropout. It records its mode each time that Python runs it."""

    def __init__(self, width=8, dropout=0.0, *, rngs):
        self.layers = nnx.List([nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)])
        self.norm = nnx.BatchNorm(width, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.out = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x):
        TRACES.append(self.norm.use_running_average)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        x = self.norm(x)
        return self.out(self.dropout(x) if self.dropout else x)


def trained(seed, **options):
    """A module in training mode, whose batch statistics differ from their initial values."""
    module = Net(rngs=nnx.Rngs(seed), **options)
    module.train()
    module(jax.random.normal(jax.random.key(seed), (32, 3)) * 2 + 1)
    return module


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}], ids=str)
def test_teacher_is_the_module_in_evaluation_mode(x, options):
    module = trained(0, **options)
    teacher = from_nnx(module, SPEC)
    assert not module.norm.use_running_average, "the module's own mode changes"
    module.eval()
    np.testing.assert_allclose(teacher(x), module(x), rtol=1e-5, atol=1e-6)
    direction = jax.grad(lambda x: teacher(x)[:, 1].sum())(x)
    np.testing.assert_allclose(direction, jax.grad(lambda x: module(x)[:, 1].sum())(x), rtol=1e-4, atol=1e-6)
    assert teacher.num_params == 3 * 8 + 8 + 8 * 8 + 8 + 16 + 8 * 2 + 2
    assert set(teacher.variables) == {"params", "batch_stats", *(("others",) if options else ())}


def test_equal_architectures_compile_once(x):
    first, second = from_nnx(trained(0), SPEC), from_nnx(trained(1), SPEC)
    assert first.apply_fn == second.apply_fn
    assert hash(first.apply_fn) == hash(second.apply_fn)
    assert first.apply_fn != from_nnx(trained(0, width=9), SPEC).apply_fn
    apply = jax.jit(lambda teacher, x: teacher(x))
    apply(first, x)
    TRACES.clear()
    assert np.abs(apply(second, x) - apply(first, x)).max() > 1e-3
    assert not TRACES


@pytest.mark.parametrize(
    ("spec", "message"), [(DataSpec((4,), 2), "does not take 2 inputs"), (DataSpec((3,), 3), "returns (2, 2)")]
)
def test_module_that_does_not_fit_is_refused(spec, message):
    assert message in message_of(from_nnx, trained(0), spec)


def test_function_is_refused():
    assert "function is no flax.nnx.Module" in message_of(from_nnx, lambda x: x, SPEC)


SETTINGS = cake_jax.TrainSettings(
    epochs=1,
    batch_size=64,
    schedule="constant",
    weight_decay=0,
    validation_fraction=0,
)


class Empty(nnx.Module):
    def __call__(self, x):
        return x[:, :2]


def batch(x, logits):
    number = np.arange(len(x), dtype=np.int32)
    return SampleBatch(x=x, logits=logits, target=number % 2, step_size=np.ones(len(x), np.float32), set_index=number)


def test_training_step_equals_one_of_nnx(x):
    logits, module = np.stack([x[:, 0], x[:, 1]], axis=1), nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    student = cake_jax.distill(jax.random.key(0), module, batch(x, logits), SETTINGS)
    labels, loss = from_logits(logits), cake_jax.DistillationLoss()
    gradient = nnx.grad(lambda module: loss(module(x), labels).mean())(module)
    assert np.abs(gradient["kernel"][...]).max() > 0.01
    expected = module.kernel[...] - SETTINGS.peak_rate * gradient["kernel"][...]
    np.testing.assert_allclose(student.variables["params"]["kernel"], expected, rtol=1e-5, atol=1e-6)


def target_logits(x):
    return 3 * jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], -1)


def test_student_learns_from_its_module_s_weights():
    x = np.random.default_rng(1).normal(size=(512, 3)).astype(np.float32)
    samples = batch(x, np.asarray(target_logits(x)))
    module = Net(width=16, rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(module)))
    settings = cake_jax.TrainSettings(epochs=40, batch_size=64, validation_fraction=0.1)
    student = cake_jax.distill(jax.random.key(0), module, samples, settings)
    assert cake_jax.evaluate(student, target_logits, x, None)["agreement"] > 0.9
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(module)), before)

    again = student.module.merge(student.variables)
    assert isinstance(again, Net)
    again.eval()
    np.testing.assert_allclose(again(x), student(x), rtol=1e-5, atol=1e-5)
    assert np.abs(student.variables["batch_stats"]["norm"]["mean"]).max() > 0.01
    other = cake_jax.distill(jax.random.key(0), Net(width=16, rngs=nnx.Rngs(1)), samples, settings)
    assert np.abs(other(x) - student(x)).max() > 1e-3, "another first weight gives another student"


def test_batch_statistics_change_in_training_mode_only(x):
    adapter, variables = split(trained(0))
    assert isinstance(adapter, NNXModule)
    training, state = adapter.apply(variables, x, train=True, mutable=["batch_stats"])
    assert np.abs(training - adapter.apply(variables, x)).max() > 1e-3
    mean = variables["batch_stats"]["norm"]["mean"]
    assert np.abs(state["batch_stats"]["norm"]["mean"] - mean).max() > 1e-3
    _, state = adapter.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_array_equal(state["batch_stats"]["norm"]["mean"], mean)


class Drops(nnx.Module):
    """Two dropouts of half of the inputs, side by side."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return jnp.stack([self.first(x), self.second(x)])


class DropsOfTheCall(nnx.Module):
    """The same with random numbers that the call gets."""

    def __init__(self):
        self.first, self.second = nnx.Dropout(0.5), nnx.Dropout(0.5)

    def __call__(self, x, *, rngs):
        return jnp.stack([self.first(x, rngs=rngs), self.second(x, rngs=rngs)])


@pytest.mark.parametrize("module", [Drops, DropsOfTheCall])
def test_dropout_draws_from_the_given_keys(module):
    adapter, variables = split(module())
    ones, keys = jnp.ones((2, 50)), jax.random.split(jax.random.key(3), 2)
    np.testing.assert_array_equal(adapter.apply(variables, ones), jnp.stack([ones, ones]))
    masks = np.asarray(adapter.apply(variables, ones, train=True, keys=keys))
    assert set(masks.ravel()) == {0.0, 2.0}
    for other in (masks[::-1], adapter.apply(variables, ones, train=True, keys=keys[::-1])):
        assert 0.3 < np.mean(masks[0] == np.asarray(other)[0]) < 0.7
    np.testing.assert_array_equal(adapter.apply(variables, ones, train=True, keys=keys), masks)


def test_a_call_s_own_mode_and_fields_are_set(x):
    class Modes(nnx.Module):
        def __init__(self):
            self.is_training = None

        def __call__(self, x, *, training=True, inference):
            return self.is_training, training, inference

    adapter, variables = split(Modes())
    assert adapter.apply(variables, x) == (False, False, True)
    assert adapter.apply(variables, x, train=True) == (True, True, False)


def test_student_with_dropout_learns(x):
    x = np.random.default_rng(1).normal(size=(512, 3)).astype(np.float32)
    samples = batch(x, np.asarray(target_logits(x)))
    settings = cake_jax.TrainSettings(epochs=40, batch_size=64, validation_fraction=0.1)
    student = cake_jax.distill(jax.random.key(0), Net(64, 0.2, rngs=nnx.Rngs(0)), samples, settings)
    assert cake_jax.evaluate(student, target_logits, x, None)["agreement"] > 0.9
    again = student.module.merge(student.variables)
    again.eval()
    np.testing.assert_allclose(again(x), student.predict(x), rtol=1e-5, atol=1e-5)


def with_call(call):
    """A linear module that is called as `call(module, x, ...)`."""

    class Linear(nnx.Module):
        __call__ = call

        def __init__(self):
            self.dropout, self.linear = nnx.Dropout(0.5), nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    return Linear


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (with_call(lambda self, x, is_eval=False: self.linear(x)), "Linear.__call__: the argument 'is_eval' is not"),
        (with_call(lambda self, x: self.linear(self.dropout(x))), "Linear fails in training mode: `deterministic` is"),
        (lambda: nnx.Linear(4, 2, rngs=nnx.Rngs(0)), "does not take inputs"),
        (Empty, "has no parameters"),
    ],
    ids=["mode", "dropout without random numbers", "other inputs", "no parameters"],
)
def test_untrainable_student_is_refused(x, module, message):
    samples = batch(x, x[:, :2])
    assert message in message_of(cake_jax.distill, jax.random.key(0), module(), samples, SETTINGS)


def test_linen_student_without_a_training_mode(x):
    class Plain(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(2)(x)

    student = cake_jax.distill(jax.random.key(0), Plain(), batch(x, x[:, :2]), SETTINGS)
    expected = cake_jax.distill(
        jax.random.key(0), models.create("logistic_regression", SPEC), batch(x, x[:, :2]), SETTINGS
    )
    np.testing.assert_allclose(student(x), expected(x), rtol=1e-5, atol=1e-5)
