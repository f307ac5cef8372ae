"""The methods `real` and `naive`, which the other methods are compared with."""

import dataclasses

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import methods
from cake_jax.methods.naive import NaiveSettings
from cake_jax.methods.real import RealSettings
from cake_jax.methods.shared.synthesize import stream
from cake_jax.synthesis import Weights
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec, concatenate

PLANE = DataSpec((2,), 2)
SIGN = from_function(lambda x: x, PLANE)  # the class of the larger value


@pytest.mark.parametrize("hard_label", ["data", "teacher"])
def test_real_labels_the_training_data_in_turn(hard_label):
    """3 rounds of 40 from 50 examples: the last 70 samples are the first examples again."""
    rng = np.random.default_rng(0)
    x, classes = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(0, 2, 50).astype(np.int32)
    settings = RealSettings(num_batches=3, batch_size=40, num_groups=2, hard_label=hard_label)
    rounds = list(stream(jax.random.key(0), SIGN, PLANE, settings, method="real", data=(x, classes)))
    samples, rows = concatenate([made.samples for made in rounds]), np.arange(120) % 50
    np.testing.assert_array_equal(samples.x, x[rows])
    np.testing.assert_array_equal(samples.logits, x[rows])
    answers = x.argmax(axis=1)
    assert (answers != classes).any()
    np.testing.assert_array_equal(samples.target, (classes if hard_label == "data" else answers)[rows])
    assert [made.queries for made in rounds] == [methods.Queries(forward=40)] * 3
    shares = [(answers == classes)[rows][start : start + 40].mean() for start in (0, 40, 80)]
    assert [made.info.target_accuracy for made in rounds] == pytest.approx(shares)


def test_real_refuses_an_unknown_hard_label():
    message = message_of(methods.get("real").prepare, RealSettings(hard_label="nope"), PLANE)
    assert message == "methods.real.hard_label: 'nope' is not one of data, teacher"


@pytest.mark.filterwarnings("ignore:synthesis.batch_size")
def test_the_rounds_of_real_are_whole_sets():
    settings = methods.get("real").prepare(RealSettings(batch_size=64, num_groups=10), DataSpec((8, 8, 1), 10))
    assert (settings.batch_size, settings.num_groups, settings.num_steps) == (60, 10, 0)


def test_real_needs_data():
    message = message_of(lambda: list(stream(jax.random.key(0), SIGN, PLANE, RealSettings(), method="real")))
    assert message.startswith("data: ")


SETTINGS = NaiveSettings(
    weights=Weights(cls=2.0, contr=3.0, tv=4.0, entropy=5.0), start="smooth", schedule="linear", image_priors=False
)


def test_naive_has_the_cross_entropy_alone():
    bare = methods.get("naive").prepare(SETTINGS, DataSpec((8, 8, 1), 10))
    assert bare.weights == Weights(cls=2.0, contr=0.0)
    assert (bare.start, bare.schedule) == ("normal", "constant")


def test_naive_keeps_data_priors_and_start_with_image_priors():
    settings = dataclasses.replace(SETTINGS, image_priors=True)
    prepared = methods.get("naive").prepare(settings, DataSpec((8, 8, 1), 10))
    assert prepared.weights == Weights(cls=2.0, contr=0.0, tv=4.0)
    assert (prepared.start, prepared.schedule) == ("smooth", "constant")
