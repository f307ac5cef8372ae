"""`cake_jax.synthesize` and `cake_jax.stream`: every method by its name, with white boxes and black boxes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from small_methods import KEY, PLANE, WAVE, wave

import cake_jax
from cake_jax import BlackBox, QuerySettings, SynthesisSettings, models, random_keys
from cake_jax.config import default, resolve
from cake_jax.methods import METHODS
from cake_jax.run.synthesis_stage import make_samples
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import from_linen
from cake_jax.types import ACCESS, DataSpec

IMAGES = DataSpec((4, 4, 1), 3, mean=(0.5,), std=(0.25,), low=0.0, high=1.0)
SETTINGS = SynthesisSettings(num_batches=2, batch_size=6, num_groups=2, num_steps=2)
GUIDED = [name for name, method in METHODS.items() if method.guide]
ANSWERS = {
    "labels": lambda x: wave(x).argmax(axis=1),
    "scores": lambda x: np.exp(wave(x)) / np.exp(wave(x)).sum(axis=1, keepdims=True),
}


@pytest.fixture(scope="module")
def image_teacher():
    """An untrained MLP of small images, with batch norm."""
    module = models.create("mlp", IMAGES, {"width": 8, "num_hidden": 0, "batch_norm": True})
    return from_linen(module, jax.jit(module.init)(KEY, jnp.zeros((1, *IMAGES.shape))), IMAGES)


def has_generator(name):
    return hasattr(METHODS[name].settings(), "latent_size")


def real_data(spec):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, *spec.shape)).astype(np.float32)
    return x, rng.integers(0, spec.num_classes, 12).astype(np.int32)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_makes_samples_of_a_white_box(name, image_teacher):
    data = real_data(IMAGES) if name == "real" else None
    settings = SETTINGS
    if has_generator(name):
        settings = METHODS[name].settings(**{**vars(SETTINGS), "features": (2, 2, 2), "latent_size": 2})
    samples = cake_jax.synthesize(KEY, image_teacher, IMAGES, settings, method=name, data=data)
    assert samples.x.shape == (12, *IMAGES.shape)
    np.testing.assert_allclose(samples.logits, image_teacher.predict(samples.x), atol=1e-5)
    np.testing.assert_array_equal(samples.set_index, np.repeat(np.arange(6), 2))
    assert len(np.unique(samples.x.reshape(12, -1), axis=0)) == 12
    if has_generator(name):
        low, high = IMAGES.bounds
        assert ((samples.x >= low) & (samples.x <= high)).all()


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_makes_samples_of_a_black_box_or_is_refused(name, answers):
    box = BlackBox(ANSWERS[answers], PLANE, QuerySettings(answers, budget=100_000))
    data = real_data(PLANE) if name == "real" else None

    def rounds():
        return list(cake_jax.stream(KEY, box, PLANE, SETTINGS, method=name, data=data))

    if ACCESS.index(METHODS[name].access) > ACCESS.index(answers):
        fitting = f"starts, noise, real, {'dfme, ' * (answers == 'scores')}ideal, zeroth_order"
        assert message_of(rounds).endswith(f"the teacher gives {answers}; use one of {fitting}")
        assert box.queries == 0
        return
    made = rounds()
    samples = [one.samples for one in made]
    assert [batch.num_samples for batch in samples] == [6, 6]
    for batch in samples:
        np.testing.assert_array_equal(batch.logits.argmax(axis=1), wave(batch.x).argmax(axis=1))
    # A pair that is drawn twice has the same middle, whose answer the ledger knows.
    asked, charged = sum(one.queries.forward for one in made), box.queries
    assert charged <= asked if name == "zeroth_order" else charged == asked
    assert all(one.queries.gradient == 0 for one in made)


def test_starts_are_cake_without_steps_and_noise_is_starts_from_gaussian_noise(image_teacher):
    def made(method, start):
        settings = dataclasses.replace(SETTINGS, start=start, num_steps=0)
        return cake_jax.synthesize(KEY, image_teacher, IMAGES, settings, method=method)

    strokes, normal = made("starts", "strokes"), made("starts", "normal")
    assert strokes.x.max() <= IMAGES.bounds[1].max() < normal.x.max()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), strokes, made("cake", "strokes"))
    jax.tree.map(np.testing.assert_array_equal, normal, made("noise", "strokes"))


@pytest.mark.parametrize("name", ["cake", "ideal", "generative"])
def test_the_samples_are_those_of_a_run(name, tmp_path):
    config = default()
    config.method, config.dataset.name, config.seed = name, "two_moons", 5
    config.student.model.name = "logistic_regression"
    for field in ("num_batches", "batch_size", "num_groups", "num_steps"):
        config.synthesis[field] = getattr(SETTINGS, field)
    config.methods.ideal.num_steps, config.methods.ideal.student.epochs, config.methods.generative.num_steps = 2, 1, 2
    settings, key = resolve(config), random_keys.run_keys(5).synthesis
    store, log = SampleStore(tmp_path / "samples"), MetricsLog(tmp_path / "metrics.jsonl")
    make_samples(key, settings, WAVE, store, tmp_path / "rounds", log)
    guide = models.create("logistic_regression", PLANE) if name == "ideal" else None
    samples = cake_jax.synthesize(key, WAVE, PLANE, settings.samples.synthesis, method=name, guide=guide)
    jax.tree.map(np.testing.assert_array_equal, samples, store.select())


def test_the_default_method_is_cake():
    samples = cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS)
    expected = cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS, method="cake")
    lake = cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS, method="lake")
    jax.tree.map(np.testing.assert_array_equal, samples, expected)
    assert np.abs(samples.x - lake.x).max() > 0.1


def test_the_default_settings_fit_two_classes():
    with pytest.warns(cake_jax.CakeWarning, match="num_groups: 2 instead of 10, because there are 2 classes"):
        samples = cake_jax.synthesize(KEY, WAVE, PLANE, cake_jax.SynthesisSettings(num_batches=1, num_steps=1))
    assert samples.num_samples == 500


def test_a_function_is_a_teacher():
    samples = cake_jax.synthesize(KEY, lambda x: WAVE(x), PLANE, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, samples, cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS))


@pytest.mark.parametrize("name", GUIDED)
def test_the_given_guide_student_is_used(name):
    """IDEAL's first round depends on nothing else. The other methods set the guide student against the teacher."""
    inputs = []

    class Guide(nn.Module):
        @nn.compact
        def __call__(self, x):
            inputs.append(x.shape)
            return nn.Dense(2)(x)

    own = cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS, method=name, guide=Guide())
    assert inputs
    other = cake_jax.synthesize(KEY, WAVE, PLANE, SETTINGS, method=name)
    assert np.abs(own.x - other.x).max() > 0


def test_stream_makes_a_round_when_it_is_needed():
    box = BlackBox(ANSWERS["scores"], PLANE, QuerySettings("scores", budget=12))
    rounds = cake_jax.stream(KEY, box, PLANE, SETTINGS, method="noise")
    assert box.queries == 0
    first = next(rounds)
    assert box.queries == first.queries.forward == 6
    (second,) = rounds
    whole = cake_jax.synthesize(KEY, box, PLANE, SETTINGS, method="noise")
    np.testing.assert_array_equal(whole.x, np.concatenate([first.samples.x, second.samples.x]))


def test_another_specification_is_refused():
    message = message_of(cake_jax.synthesize, KEY, WAVE, IMAGES, SETTINGS)
    assert message == "spec: the teacher has inputs of shape (2,); pass teacher.spec"


def test_real_data_are_needed_by_the_method_that_reads_them():
    message = message_of(cake_jax.synthesize, KEY, WAVE, PLANE, SETTINGS, method="real")
    assert message == "data: the method 'real' needs real training data; pass x and classes"
    nothing = real_data(PLANE)[0][:0], []
    message = message_of(cake_jax.synthesize, KEY, WAVE, PLANE, SETTINGS, method="real", data=nothing)
    assert message == "data: there are no inputs"


def test_an_unknown_method_is_refused():
    assert message_of(cake_jax.synthesize, KEY, WAVE, PLANE, method="magic").startswith("method: 'magic' is not one of")


def test_a_method_s_own_budget_is_at_most_that_of_the_black_box():
    """By default `zeroth_order` would spend a million queries."""
    box = BlackBox(ANSWERS["scores"], PLANE, QuerySettings("scores", budget=400))
    settings = SynthesisSettings(num_batches=2, batch_size=20, num_groups=2, num_steps=4)
    samples = cake_jax.synthesize(KEY, box, PLANE, settings, method="zeroth_order")
    assert samples.num_samples == 40
    assert 200 < box.queries <= 400
