"""The teacher as a pytree, and how it is made."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax import models
from cake_jax.teachers import Teacher, as_teacher, from_function, from_linen
from cake_jax.teachers.teacher import LinenApply
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec(shape=(3,), num_classes=2)
TRACES = []


class Counted(nn.Module):
    """A linear model that notes each time Python runs it."""

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


def test_call(x):
    teacher = linear(0)
    np.testing.assert_allclose(teacher(x), logits(teacher, x), rtol=1e-5, atol=1e-6)


def test_second_teacher_of_the_same_kind_does_not_retrace(x):
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


def test_grad_with_respect_to_a_teacher(x):
    gradient = jax.jit(jax.grad(lambda teacher, x: teacher(x).sum()))(linear(0), x)
    assert isinstance(gradient, Teacher)
    assert gradient.spec == SPEC
    dense = gradient.variables["params"]["Dense_0"]
    np.testing.assert_allclose(dense["kernel"], np.repeat(x.sum(0)[:, None], 2, 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dense["bias"], [5.0, 5.0])


def test_grad_with_respect_to_the_input(x):
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


def test_linen_apply_of_equal_modules():
    first, second = (LinenApply(models.create("mlp", SPEC, {"width": 8})) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != LinenApply(models.create("mlp", SPEC, {"width": 9}))


def test_linen_apply_with_options_as_json_gives_them():
    spec = DataSpec(shape=(8, 8, 1), num_classes=2)
    first, second = (LinenApply(models.create("lenet5", spec, {"features": [3, 8, 60, 42]})) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


def test_from_function(x):
    weights = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    teacher = from_function(lambda x: x @ weights, SPEC)
    assert teacher.spec == SPEC
    np.testing.assert_allclose(jax.jit(lambda teacher, x: teacher(x))(teacher, x), x @ weights, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: teacher(x)[:, 0].sum())(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(weights[:, 0], x.shape), rtol=1e-6)


def test_as_teacher(x):
    teacher = linear(0)
    assert as_teacher(teacher, SPEC) is teacher
    np.testing.assert_array_equal(as_teacher(lambda x: x[:, :2], SPEC)(x), x[:, :2])
    with pytest.raises(CakeError):
        as_teacher(lambda x: x, SPEC)


def refuse(x):
    raise AssertionError


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x[:, :1],
        lambda x: x[:, 0],
        lambda x: x[:1, :2],
        lambda x: x @ jnp.zeros((4, 2)),
        lambda x: (x[:, :2], x),
        refuse,
    ],
    ids=["too many classes", "too few classes", "no class axis", "batch lost", "other input", "tuple", "refusal"],
)
def test_function_that_does_not_fit(function):
    with pytest.raises(CakeError) as caught:
        from_function(function, SPEC)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", [DataSpec((4,), 2), DataSpec((3,), 3), DataSpec((3, 3, 1), 2)], ids=["width", "classes", "image"]
)
def test_module_that_does_not_fit(spec):
    module = Counted()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    with pytest.raises(CakeError) as caught:
        from_linen(module, variables, spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(value):
    module = Counted()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    variables["params"]["Dense_0"]["bias"] = jnp.array([0.0, value])
    with pytest.raises(CakeError, match="not finite"):
        from_linen(module, variables, SPEC)
    with pytest.raises(CakeError, match="not finite"):
        from_function(lambda x: x[:, :2] + value, SPEC)
    with pytest.raises(CakeError, match="not finite"):
        from_function(lambda x: jnp.log(x[:, :2]), SPEC)


def test_a_function_that_fails_when_it_runs():
    def fail(x):
        raise ValueError("not today")

    def function(x):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((len(x), 2), jnp.float32), x)

    with pytest.raises(CakeError, match="fails on 2 inputs") as caught:
        from_function(function, SPEC)
    assert "\n" not in str(caught.value)


def test_a_teacher_without_values_is_asked_for_none(x):
    """Abstract variables, and under `jit`, where a value is not known yet."""
    module, asked = Counted(), []
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3)))
    assert from_linen(module, shapes, SPEC).num_params == 8
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))

    def counted(x):
        jax.debug.callback(lambda: asked.append(1))
        return x[:, :2]

    np.testing.assert_allclose(
        jax.jit(lambda variables, x: from_linen(module, variables, SPEC)(x))(variables, x),
        from_linen(module, variables, SPEC)(x),
        rtol=1e-5,
    )
    jax.jit(lambda x: from_function(counted, SPEC) and x)(x)
    jax.grad(lambda weight: from_function(lambda x: weight * x[:, :2], SPEC)(x).sum())(1.0)
    jax.effects_barrier()
    assert not asked


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"params": {"a": np.zeros((3, 2)), "b": {"c": np.zeros(2)}}}, 8),
        ({"params": {"a": np.zeros((3, 2))}, "batch_stats": {"mean": np.zeros(100)}}, 6),
        (flax.core.freeze({"params": {"a": np.zeros((3, 2))}, "batch_stats": {"mean": np.zeros(100)}}), 6),
        ({"a": np.zeros((3, 2)), "b": np.zeros(())}, 7),
    ],
)
def test_num_params(variables, count):
    assert Teacher(variables, lambda variables, x: x, SPEC).num_params == count


def test_num_params_of_models():
    assert linear(0).num_params == 8
    assert from_function(lambda x: x[:, :2], SPEC).num_params == 0
