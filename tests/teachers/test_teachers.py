"""The `Teacher` pytree and its constructors."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import SynthesisSettings, models, synthesize
from cake_jax.teachers import (
    LinenApply,
    Teacher,
    as_queryable,
    from_function,
    from_linen,
    to_torch_tensors,
    with_temperature,
)
from cake_jax.types import DataSpec

SPEC = DataSpec(shape=(3,), num_classes=2)
TRACES = []


class Counted(nn.Module):
    """A linear model that records its mode each time that Python runs it."""

    @nn.compact
    def __call__(self, x, train=False):
        TRACES.append(train)
        return nn.Dense(2)(x)


def linear(seed):
    module = Counted()
    return from_linen(module, module.init(jax.random.key(seed), jnp.zeros((1, 3))), SPEC)


def logits(teacher, x):
    dense = teacher.variables["params"]["Dense_0"]
    return np.asarray(x) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_call_returns_logits(x):
    teacher = linear(0)
    np.testing.assert_allclose(teacher(x), logits(teacher, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 1001])
def test_predict_returns_logits_on_the_host(count):
    teacher, x = linear(0), np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    answer = teacher.predict(x)
    assert isinstance(answer, np.ndarray)
    assert (answer.shape, answer.dtype) == ((count, 2), np.float32)
    np.testing.assert_allclose(answer, logits(teacher, x), rtol=1e-5, atol=1e-6)


def test_a_temperature_divides_the_logits(x):
    teacher = linear(0)
    np.testing.assert_allclose(with_temperature(teacher, 4.0)(x), logits(teacher, x) / 4, rtol=1e-5, atol=1e-6)
    assert with_temperature(teacher, 1.0) is teacher
    assert with_temperature(teacher, 4.0).apply_fn == with_temperature(linear(1), 4.0).apply_fn


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), "4", np.ones(2)])
def test_a_temperature_is_a_number_above_zero(temperature):
    assert message_of(with_temperature, linear(0), temperature).startswith("temperature: ")


def test_a_temperature_is_that_of_a_teacher():
    assert message_of(with_temperature, logits, 4.0).startswith("teacher: ")


def test_weights_with_a_temperature_are_not_exported():
    assert "temperature" in message_of(to_torch_tensors, with_temperature(linear(0), 4.0))


def test_a_temperature_makes_a_teacher_of_large_logits_usable():
    """Logits of 200 alone make the steps diverge. Divided by 200, they give the same samples as logits of 1."""
    teacher = from_function(lambda x: jnp.sin(x[:, :2]), SPEC)
    large = from_function(lambda x: 200 * jnp.sin(x[:, :2]), SPEC)
    settings = SynthesisSettings(num_batches=1, batch_size=4, num_groups=2, num_steps=8, step_size=0.5)
    key = jax.random.key(0)
    samples = synthesize(key, with_temperature(large, 200.0), SPEC, settings)
    expected = synthesize(key, teacher, SPEC, settings)
    np.testing.assert_allclose(samples.x, expected.x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(samples.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert np.abs(synthesize(key, large, SPEC, settings).x).max() > 10 * np.abs(expected.x).max()


def test_teacher_gives_full_access_and_free_queries():
    teacher = linear(0)
    assert (teacher.access, teacher.queries) == ("statistics", None)


def test_equal_architectures_compile_once(x):
    first, second = linear(0), linear(1)
    apply = jax.jit(lambda teacher, x: teacher(x))
    TRACES.clear()
    np.testing.assert_allclose(apply(first, x), logits(first, x), rtol=1e-5, atol=1e-6)
    assert len(TRACES) == 1
    np.testing.assert_allclose(apply(second, x), logits(second, x), rtol=1e-5, atol=1e-6)
    assert len(TRACES) == 1
    assert np.abs(logits(first, x) - logits(second, x)).max() > 0.1


def test_teacher_runs_in_evaluation_mode(x):
    teacher = linear(0)
    TRACES.clear()
    teacher(x)
    assert TRACES == [False]


def test_gradient_with_respect_to_a_teacher(x):
    gradient = jax.jit(jax.grad(lambda teacher, x: teacher(x).sum()))(linear(0), x)
    assert isinstance(gradient, Teacher)
    assert gradient.spec == SPEC
    dense = gradient.variables["params"]["Dense_0"]
    np.testing.assert_allclose(dense["kernel"], np.repeat(x.sum(0)[:, None], 2, 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dense["bias"], [5.0, 5.0])


def test_gradient_with_respect_to_the_input(x):
    teacher = linear(0)
    gradient = jax.grad(lambda x: teacher(x)[:, 1].sum())(x)
    column = np.asarray(teacher.variables["params"]["Dense_0"]["kernel"])[:, 1]
    np.testing.assert_allclose(gradient, np.broadcast_to(column, x.shape), rtol=1e-6)


def test_vmap_over_stacked_teachers(x):
    teachers = [linear(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *teachers)
    together = jax.vmap(lambda teacher: teacher(x))(stacked)
    assert together.shape == (3, 5, 2)
    for value, teacher in zip(together, teachers, strict=True):
        np.testing.assert_allclose(value, logits(teacher, x), rtol=1e-5, atol=1e-6)


def test_linen_apply_is_equal_for_equal_modules():
    first, second = (LinenApply(models.create("mlp", SPEC, {"width": 8})) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != LinenApply(models.create("mlp", SPEC, {"width": 9}))


def test_linen_apply_accepts_lists_of_json():
    spec = DataSpec(shape=(8, 8, 1), num_classes=2)
    first, second = (LinenApply(models.create("lenet5", spec, {"features": [3, 8, 60, 42]})) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


def test_teacher_of_a_function(x):
    weights = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    teacher = from_function(lambda x: x @ weights, SPEC)
    assert teacher.spec == SPEC
    np.testing.assert_allclose(jax.jit(lambda teacher, x: teacher(x))(teacher, x), x @ weights, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: teacher(x)[:, 0].sum())(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(weights[:, 0], x.shape), rtol=1e-6)


def test_as_queryable_keeps_models_and_converts_functions(x):
    teacher = linear(0)
    assert as_queryable(teacher, SPEC) is teacher
    np.testing.assert_array_equal(as_queryable(lambda x: x[:, :2], SPEC).predict(x), x[:, :2])
    assert "returns (2, 3)" in message_of(as_queryable, lambda x: x, SPEC)


def fail(x):
    raise AssertionError("a first line\nand a second")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "returns (2, 3)"),
        (lambda x: x[:, None, :1], "returns (2, 1, 1)"),
        (lambda x: x[:1, :2], "returns (1, 2)"),
        (lambda x: x @ jnp.zeros((4, 2)), "does not take 2 inputs of shape (3,)"),
        (fail, "does not take 2 inputs of shape (3,) at once: a first line"),
    ],
    ids=["too many classes", "no class axis", "batch lost", "other input", "failure"],
)
def test_function_that_does_not_fit_is_refused(function, message):
    assert message in message_of(from_function, function, SPEC)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec((4,), 2), "does not take 2 inputs of shape (4,)"),
        (DataSpec((3,), 3), "returns (2, 2)"),
        (DataSpec((3, 3, 1), 2), "does not take 2 inputs of shape (3, 3, 1)"),
    ],
    ids=["width", "classes", "image"],
)
def test_module_that_does_not_fit_is_refused(spec, message):
    module = Counted()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    assert message in message_of(from_linen, module, variables, spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value):
    module = Counted()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    variables["params"]["Dense_0"]["bias"] = jnp.array([0.0, value])
    assert "not finite" in message_of(from_linen, module, variables, SPEC)
    assert "not finite" in message_of(from_function, lambda x: x[:, :2] + value, SPEC)


def test_logarithms_of_negative_inputs_are_refused():
    assert "not finite" in message_of(from_function, lambda x: jnp.log(x[:, :2]), SPEC)


def test_function_that_fails_when_it_runs_is_refused():
    def function(x):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((len(x), 2), jnp.float32), x)

    assert "fails on 2 inputs" in message_of(from_function, function, SPEC)


def test_logits_of_abstract_or_traced_variables_are_not_computed(x):
    module, calls = Counted(), []
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3)))
    assert from_linen(module, shapes, SPEC).num_params == 8
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return x[:, :2]

    np.testing.assert_allclose(
        jax.jit(lambda variables, x: from_linen(module, variables, SPEC)(x))(variables, x),
        from_linen(module, variables, SPEC)(x),
        rtol=1e-5,
    )
    jax.jit(lambda x: from_function(counted, SPEC) and x)(x)
    jax.grad(lambda weight: from_function(lambda x: weight * x[:, :2], SPEC)(x).sum())(1.0)
    jax.effects_barrier()
    assert not calls
    from_function(counted, SPEC)
    jax.effects_barrier()
    assert calls, "concrete logits are computed"


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"params": {"a": np.zeros((3, 2)), "b": {"c": np.zeros(2)}}}, 8),
        ({"params": {"a": np.zeros((3, 2))}, "batch_stats": {"mean": np.zeros(100)}}, 6),
        (flax.core.freeze({"params": {"a": np.zeros((3, 2))}, "batch_stats": {"mean": np.zeros(100)}}), 6),
        ({"a": np.zeros((3, 2)), "b": np.zeros(())}, 7),
    ],
)
def test_num_params_counts_the_parameters_only(variables, count):
    assert Teacher(variables, lambda variables, x: x, SPEC).num_params == count


def test_num_params_of_models():
    assert linear(0).num_params == 8
    assert from_function(lambda x: x[:, :2], SPEC).num_params == 0
