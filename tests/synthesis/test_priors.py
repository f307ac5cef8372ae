"""Data priors that are added from outside: by name, and as an object among the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from smooth_teacher import SPEC, TEACHER

from cake_jax.synthesis import SynthesisSettings, Weights, checked, draw_batch, minibatch
from cake_jax.synthesis.priors import PRIORS, Prior
from cake_jax.types import DataSpec

SETTINGS = SynthesisSettings(num_batches=1, batch_size=10, num_groups=2, num_steps=1, step_size=0.5)
SQUARE = Prior(lambda x: jnp.square(x).sum(axis=(-3, -2, -1)))
KEY = jax.random.key(0)


@pytest.mark.parametrize("prior", ["a name", SQUARE], ids=["by name", "as an object"])
def test_a_step_goes_down_the_gradient_of_the_prior(prior, monkeypatch):
    """The prior is averaged over the 10 samples. So the gradient of |x|^2 with weight 4 is 4 x 2 x / 10."""
    monkeypatch.setitem(PRIORS, "a name", SQUARE)
    weights = Weights(cls=0.0, contr=0.0, priors=((prior, 4.0),))
    settings = checked(dataclasses.replace(SETTINGS, weights=weights), SPEC)
    samples, info = minibatch(KEY, TEACHER, settings, 0)
    start, _ = draw_batch(KEY, settings, SPEC, 0)
    np.testing.assert_allclose(samples.x, start - 0.5 * 4 * 2 * start / 10, rtol=1e-5)
    assert info.prior == pytest.approx(4 * np.square(samples.x).sum() / 10, rel=1e-5)


def test_data_priors_are_those_with_a_weight(monkeypatch):
    monkeypatch.setitem(PRIORS, "square", SQUARE)
    assert Weights().data_priors == ()
    weights = Weights(tv=2.0, priors=(("square", 3.0), (SQUARE, 0.0)))
    assert weights.data_priors == ((PRIORS["tv"], 2.0), (SQUARE, 3.0))


def test_a_prior_of_images_is_refused_for_vectors(monkeypatch):
    monkeypatch.setitem(PRIORS, "edges", SQUARE._replace(needs_images=True))
    monkeypatch.setitem(PRIORS, "square", SQUARE)
    vectors = DataSpec((7,), 5)

    def with_weights(**weights):
        return dataclasses.replace(SETTINGS, weights=Weights(**weights))

    for weights, field in (({"tv": 1.0}, "tv"), ({"priors": (("edges", 1.0),)}, "edges")):
        message = message_of(checked, with_weights(**weights), vectors)
        assert message == f"synthesis.weights.{field}: inputs of shape (7,) are no images; set it to 0"
        checked(with_weights(**weights), SPEC)
    checked(with_weights(priors=(("square", 1.0), ("edges", 0.0))), vectors)


def test_an_unknown_prior_is_refused():
    settings = dataclasses.replace(SETTINGS, weights=Weights(priors=(("edges", 1.0),)))
    assert message_of(checked, settings, SPEC) == "synthesis.weights: 'edges' is not one of tv, l2"


def test_l2_is_the_mean_square_of_an_image():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(PRIORS["l2"].value(x), (x.astype(np.float64) ** 2).mean(axis=(2, 3, 4)), rtol=1e-6)
    settings = dataclasses.replace(SETTINGS, weights=Weights(priors=(("l2", 1.0),)))
    message = message_of(checked, settings, DataSpec((7,), 5))
    assert message == "synthesis.weights.l2: inputs of shape (7,) are no images; set it to 0"
