"""`inversion`: the batch-norm layers that it reads, its objective on two devices, and its settings."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from finite_differences import gradient_of

from cake_jax import losses, methods, models, parallel
from cake_jax.methods import inversion
from cake_jax.methods.inversion import InversionSettings
from cake_jax.synthesis import Weights, draw_batch, minibatch
from cake_jax.teachers import from_function, from_linen
from cake_jax.teachers.batch_norm import answer_with_norm_inputs
from cake_jax.types import DataSpec

SPEC = DataSpec((6,), 5)
KEY = jax.random.key(5)
# One step of plain gradient descent, so that the difference of the samples is the gradient.
ONE_STEP = InversionSettings(
    num_batches=1,
    batch_size=21,
    num_groups=3,
    num_steps=1,
    step_size=0.1,
    schedule="constant",
    weights=Weights(cls=0.5, contr=0.2, entropy=3.0),
    weight=4.0,
)


@pytest.fixture(scope="module")
def teacher():
    """An MLP of one hidden layer, whose batch norm has seen other data than N(0, I)."""
    module = models.create("mlp", SPEC, {"width": 7, "num_hidden": 0, "batch_norm": True})
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, 6)))
    x = 0.7 + 1.5 * np.random.default_rng(2).normal(size=(500, 6)).astype(np.float32)
    hidden = np.asarray(x @ variables["params"]["Dense_0"]["kernel"] + variables["params"]["Dense_0"]["bias"])
    statistics = {"BatchNorm_0": {"mean": hidden.mean(axis=0), "var": hidden.var(axis=0)}}
    return from_linen(module, {**variables, "batch_stats": statistics}, SPEC)


def known_of(teacher):
    return teacher.variables["batch_stats"]["BatchNorm_0"]


def hidden_of(teacher, x):
    """The inputs of the batch norm, in the precision of x."""
    layer = teacher.variables["params"]["Dense_0"]
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def logits_of(teacher, x):
    """The teacher's logits in NumPy."""
    params, known = teacher.variables["params"], known_of(teacher)
    scale, bias = (np.asarray(params["BatchNorm_0"][name]) for name in ("scale", "bias"))
    normalised = (hidden_of(teacher, x) - known["mean"]) / np.sqrt(known["var"] + np.float32(1e-5))
    hidden = np.maximum(normalised * scale + bias, 0)
    return hidden @ np.asarray(params["Dense_1"]["kernel"]) + np.asarray(params["Dense_1"]["bias"])


def test_the_inputs_of_a_batch_norm_layer_are_read(teacher):
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    logits, (layer,) = answer_with_norm_inputs(teacher, x)
    np.testing.assert_allclose(logits, logits_of(teacher, x), atol=1e-5)
    np.testing.assert_allclose(layer.x, hidden_of(teacher, x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer.mean, known_of(teacher)["mean"])
    np.testing.assert_array_equal(layer.var, known_of(teacher)["var"])


def test_other_teachers_have_no_batch_norm_layers():
    assert answer_with_norm_inputs(from_function(lambda x: x[:, :5], SPEC), jnp.zeros((2, 6)))[1] == []


def test_one_step_goes_down_the_objective_of_the_whole_mini_batch(teacher):
    """The 7 sets lie on 2 devices, of which one has a set of padding. The statistics are those of all samples."""
    assert ONE_STEP.num_sets % parallel.device_count()
    start, target = draw_batch(KEY, ONE_STEP, SPEC, 0)
    known = known_of(teacher)

    def by_formula(x):
        hidden, logits = hidden_of(teacher, x), logits_of(teacher, x)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        sets, mean_p = logits.reshape(7, 3, 5), np.exp(log_p).mean(axis=0)
        cls = 3 * -log_p[np.arange(21), target].mean()
        contr = 0.5 * 9 * np.square(sets[:, :, None] - sets[:, None]).mean()
        entropy = (mean_p * np.log10(mean_p)).mean()
        distance = np.linalg.norm(hidden.mean(0) - known["mean"]) + np.linalg.norm(hidden.var(0) - known["var"])
        return 0.5 * cls + 0.2 * contr + 3.0 * entropy + 4.0 * 0.5 * 3 * distance

    samples, _ = minibatch(KEY, teacher, ONE_STEP, 0, objective=inversion.objective)
    np.testing.assert_allclose((start - samples.x) / 0.1, gradient_of(by_formula, start), rtol=1e-3, atol=1e-4)


def test_samples_have_the_moments_of_the_training_data(teacher):
    fields = {"num_batches": 1, "batch_size": 60, "num_groups": 3, "num_steps": 200, "weights": Weights(cls=0.1)}
    distances, known = {}, known_of(teacher)
    for name in ("inversion", "naive"):
        method = methods.get(name)
        settings = method.prepare(method.settings(**fields), SPEC)
        hidden = hidden_of(teacher, method.make_round(KEY, (), teacher, None, settings, 0).samples.x)
        distances[name] = losses.moment_distance(hidden.mean(0), hidden.var(0), known["mean"], known["var"])
    assert distances["inversion"] < 0.1 * distances["naive"]


def test_prepared_settings():
    settings = InversionSettings(weights=Weights(cls=3.0, contr=2.0), num_groups=5, batch_size=50, step_size=0.2)
    plain = inversion.prepare(settings, SPEC)
    assert plain.weights == Weights(cls=3.0, contr=0.0)
    assert plain.statistics_weight == 10.0 * 3.0 * 5
    assert (plain.optimizer, plain.schedule, plain.step_size) == ("adam", "constant", 0.2)
    assert inversion.prepare(dataclasses.replace(settings, contrast=True), SPEC).weights.contr == 2.0


IMAGES = np.arange(2 * 4 * 4 * 1, dtype=np.float32).reshape(2, 4, 4, 1)


def test_jitter_shifts_all_images_of_a_set_by_the_same_few_pixels():
    settings, seen = InversionSettings(jitter=1), set()
    for number in range(200):
        moved = np.asarray(settings.moved(jax.random.key(number), IMAGES))
        shifts = {
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if np.array_equal(moved, np.roll(IMAGES, (down, right), axis=(1, 2)))
        }
        assert len(shifts) == 1
        seen |= shifts
    assert len(seen) == 9


def test_flip_mirrors_half_of_the_sets():
    flips = [np.asarray(InversionSettings(flip=True).moved(jax.random.key(number), IMAGES)) for number in range(200)]
    mirrored = sum(np.array_equal(moved, IMAGES[:, :, ::-1]) for moved in flips)
    assert mirrored + sum(np.array_equal(moved, IMAGES) for moved in flips) == 200
    assert 70 < mirrored < 130


def test_without_jitter_and_flip_images_stay():
    np.testing.assert_array_equal(InversionSettings().moved(KEY, IMAGES), IMAGES)


@pytest.mark.parametrize("field", [{"jitter": 1}, {"flip": True}])
def test_vectors_cannot_be_moved(field):
    message = message_of(inversion.prepare, dataclasses.replace(ONE_STEP, **field), SPEC)
    assert message == "methods.inversion.jitter: inputs of shape (6,) are no images; set it and flip to 0"


def test_the_statistics_couple_the_sets():
    assert InversionSettings().couples_sets


def test_a_weight_of_zero_is_refused():
    message = message_of(inversion.prepare, dataclasses.replace(ONE_STEP, weight=0.0), SPEC)
    assert message == "methods.inversion.weight: 0.0 must be above 0; without statistics use 'naive'"


def test_a_teacher_without_statistics_is_refused():
    module = nn.Dense(5)
    teacher = from_linen(module, module.init(KEY, jnp.zeros((1, 6))), SPEC)
    message = message_of(inversion.make_round, KEY, (), teacher, None, ONE_STEP, 0)
    assert message.startswith("method: this teacher has no batch-norm statistics that can be read; use ")
