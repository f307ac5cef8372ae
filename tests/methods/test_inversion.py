"""The look at batch norm: what its layers see, and the prior's gradient on one device and on several."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax import losses, methods, models, synthesis
from cake_jax.methods import inversion
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.teachers import Teacher, from_function, from_linen
from cake_jax.teachers.batch_norm import answer_with_norm_inputs
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((6,), 5)
SETTINGS = SynthesisSettings(
    num_batches=1, batch_size=21, num_groups=3, num_steps=1, weights=Weights(cls=0.5, contr=0.0, statistics=4.0)
)


@pytest.fixture(scope="module")
def teacher():
    """An MLP of one hidden layer, whose batch norm has seen other data than N(0, I)."""
    module = models.create("mlp", SPEC, {"width": 7, "num_hidden": 0, "batch_norm": True})
    variables = module.init(jax.random.key(1), jnp.zeros((1, 6)))
    x = 0.7 + 1.5 * jax.random.normal(jax.random.key(2), (500, 6))
    for _ in range(60):
        _, moved = module.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **moved}
    return from_linen(module, variables, SPEC)


def hidden(teacher: Teacher, x):
    weights = teacher.variables["params"]["Dense_0"]
    return x @ weights["kernel"] + weights["bias"]


def test_what_the_layer_sees(teacher):
    x = jax.random.normal(jax.random.key(0), (9, 6))
    logits, (layer,) = answer_with_norm_inputs(teacher, x)
    np.testing.assert_array_equal(logits, teacher(x))
    np.testing.assert_allclose(layer.x, hidden(teacher, x), rtol=1e-5, atol=1e-6)
    known = teacher.variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_array_equal(layer.mean, known["mean"])
    np.testing.assert_array_equal(layer.var, known["var"])
    assert answer_with_norm_inputs(from_function(lambda x: x[:, :5], SPEC), x)[1] == []


def test_moment_distance():
    """||(3, 4)|| + ||(0, 2)|| = 7; no gradient, and no NaN, where the moments are equal."""
    mean, var = jnp.array([3.0, 4.0]), jnp.array([1.0, 3.0])
    assert losses.moment_distance(mean, var, jnp.zeros(2), jnp.ones(2)) == 7.0
    assert not jax.grad(losses.moment_distance)(mean, var, mean, var).any()


def test_one_step_goes_down_the_distance_of_the_whole_mini_batch(teacher):
    """7 sets on 4 devices, so that one has a set of padding: the gradient is that of one mean over all samples."""
    key, known = jax.random.key(5), teacher.variables["batch_stats"]["BatchNorm_0"]
    assert jax.local_device_count() > 1

    def whole(x, target):
        seen = hidden(teacher, x)
        distance = jnp.linalg.norm(seen.mean(0) - known["mean"]) + jnp.linalg.norm(seen.var(0) - known["var"])
        log_p = jax.nn.log_softmax(teacher(x))
        cross_entropy = -jnp.take_along_axis(log_p, target[:, None], axis=1).mean()
        return 0.5 * SETTINGS.num_groups * cross_entropy + 4.0 * distance

    x, target = synthesis.starts(key, SETTINGS, SPEC, 0)
    samples, _ = synthesis.minibatch(key, teacher, SETTINGS, 0)
    gradient = (x - samples.x) / SETTINGS.step_size
    np.testing.assert_allclose(gradient, jax.grad(whole)(x, target), rtol=1e-3, atol=1e-5)


def test_samples_have_the_moments_of_the_training_data(teacher):
    common = dataclasses.replace(SETTINGS, batch_size=60, num_steps=200, weights=Weights(cls=0.1, contr=1.0))
    method = methods.get("inversion")
    known = teacher.variables["batch_stats"]["BatchNorm_0"]
    distances = {}
    for name, own in {"inversion": method.defaults, "naive": {"image_priors": False}}.items():
        settings = methods.get(name).settings(common, own, SPEC)
        samples = methods.get(name).next(jax.random.key(0), (), teacher, None, settings, 0).samples
        seen = hidden(teacher, samples.x)
        distances[name] = losses.moment_distance(seen.mean(0), seen.var(0), known["mean"], known["var"])
    assert distances["inversion"] < 0.1 * distances["naive"]


def test_what_it_changes_of_the_settings():
    common = SynthesisSettings(weights=Weights(cls=3.0, contr=2.0), num_groups=5, batch_size=50)
    plain = inversion.settings(common, {"weight": 10.0, "step_size": 0.2, "contrast": False}, SPEC)
    assert plain.weights == Weights(cls=3.0, contr=0.0, statistics=10.0 * 3.0 * 5)
    assert (plain.optimizer, plain.schedule, plain.step_size) == ("adam", "constant", 0.2)
    both = inversion.settings(common, {"weight": 10.0, "step_size": 0.2, "contrast": True}, SPEC)
    assert both.weights.contr == 2.0
    with pytest.raises(CakeError, match=r"methods\.inversion\.weight"):
        inversion.settings(common, {"weight": 0.0, "step_size": 0.2, "contrast": True}, SPEC)


def test_a_teacher_without_statistics_is_refused():
    module = nn.Dense(5)
    teacher = from_linen(module, module.init(jax.random.key(0), jnp.zeros((1, 6))), SPEC)
    with pytest.raises(CakeError, match="no batch-norm statistics"):
        inversion.METHOD.next(jax.random.key(0), (), teacher, None, SETTINGS, 0)
