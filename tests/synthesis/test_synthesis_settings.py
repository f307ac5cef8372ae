"""The settings of the synthesis, and their check."""

import dataclasses

import jax.numpy as jnp
import pytest
from cake_errors import message_of
from small_synthesis import SETTINGS
from smooth_teacher import SPEC

from cake_jax.synthesis import SynthesisSettings, Weights, checked
from cake_jax.synthesis.targets import TARGETS, distinct
from cake_jax.types import CakeWarning, DataSpec

VECTORS = DataSpec((7,), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 0}, "num_groups: 0 must be above 0"),
        ({"num_batches": 0}, "num_batches: 0 must be above 0"),
        ({"step_size": 0.0}, "step_size: 0.0 must be above 0"),
        ({"num_steps": -1}, "num_steps: -1 is below 0"),
        ({"sets_per_chunk": -1}, "sets_per_chunk: -1 is below 0"),
        ({"schedule": "one_cycle"}, "schedule: 'one_cycle' is not one of constant, linear, cosine"),
        ({"precision": "float16"}, "precision: 'float16' is not one of float32, bf16"),
        ({"contrastive": "cosine"}, "contrastive: 'cosine' is not one of mse, snn"),
        ({"contrastive": "snn", "batch_size": 3}, "contrastive: 'snn' needs at least two sets in a mini-batch"),
        ({"optimizer": "adagrad2"}, "optimizer: 'adagrad2' is not one of sgd, adam"),
        ({"optimizer": "adam", "langevin_temperature": 0.1}, "optimizer: Langevin noise needs 'sgd'"),
        ({"langevin_temperature": -1.0}, "langevin_temperature: -1.0 is below 0"),
        ({"start": "pink"}, "start: 'pink' is not one of normal, smooth, contrasted"),
        ({"targets": "even"}, "targets: 'even' is not one of distinct"),
    ],
)
def test_values_out_of_range_are_refused_by_field(change, message):
    assert message_of(checked, dataclasses.replace(SETTINGS, **change), SPEC).startswith(f"synthesis.{message}")


@pytest.mark.parametrize(
    ("groups", "size", "fitting", "message"),
    [
        (10, 500, (5, 500), "synthesis.num_groups: 5 instead of 10, because there are 5 classes"),
        (3, 500, (3, 498), "synthesis.batch_size: 498 instead of 500, a multiple of 3"),
        (4, 2, (2, 2), "synthesis.num_groups: 2 instead of 4, because there are mini-batches of 2 samples"),
        (
            7,
            12,
            (5, 10),
            "synthesis.num_groups: 5 instead of 7, because there are 5 classes; "
            "synthesis.batch_size: 10 instead of 12, a multiple of 5",
        ),
    ],
)
def test_sets_and_mini_batches_fit_the_classes(groups, size, fitting, message):
    settings = SynthesisSettings(num_groups=groups, batch_size=size)
    with pytest.warns(CakeWarning) as warned:
        fitted = checked(settings, VECTORS)
    assert [str(warning.message) for warning in warned] == [message]
    assert (fitted.num_groups, fitted.batch_size) == fitting
    assert dataclasses.replace(fitted, num_groups=groups, batch_size=size) == settings
    assert checked(fitted, VECTORS) is fitted


@pytest.mark.parametrize("start", ["smooth", "contrasted"])
def test_a_start_of_images_is_refused_for_vectors(start):
    settings = dataclasses.replace(SETTINGS, start=start, weights=Weights())
    message = message_of(checked, settings, VECTORS)
    assert message == "synthesis.start: inputs of shape (7,) are no images; set it to 'normal'"


def test_valid_settings_are_returned():
    changes = ({}, {"start": "smooth", "contrastive": "snn", "optimizer": "adam"}, {"langevin_temperature": 0.5})
    for settings in (dataclasses.replace(SETTINGS, **change) for change in changes):
        assert checked(settings, SPEC) is settings
    functions = {"start": lambda key, groups, spec: jnp.zeros((groups, *spec.shape)), "targets": distinct}
    functions["contrastive"] = jnp.sum
    settings = dataclasses.replace(SETTINGS, weights=Weights(), **functions)
    assert checked(settings, VECTORS) is settings


def test_functions_and_names_of_starts_and_targets(monkeypatch):
    def start(key, groups, spec):
        return jnp.zeros((groups, *spec.shape))

    def last(key, num_classes, groups):
        return jnp.arange(num_classes - groups, num_classes)

    monkeypatch.setitem(TARGETS, "last", last)
    by_name = checked(dataclasses.replace(SETTINGS, targets="last"), SPEC)
    given = dataclasses.replace(SETTINGS, start=start, targets=last)
    assert by_name.draw_targets is given.draw_targets is last
    assert given.draw_start is start


@pytest.mark.parametrize(
    ("change", "couples"),
    [
        ({}, False),
        ({"weights": Weights(entropy=1.0)}, True),
        ({"contrastive": "snn"}, True),
        ({"contrastive": "snn", "weights": Weights(contr=0.0)}, False),
    ],
)
def test_entropy_and_snn_couple_the_sets(change, couples):
    assert dataclasses.replace(SETTINGS, **change).couples_sets == couples


def test_numbers_of_sets_and_samples():
    settings = SynthesisSettings(num_batches=4, batch_size=30, num_groups=5)
    assert (settings.num_sets, settings.num_samples) == (6, 120)


def test_step_sizes_fall_over_the_mini_batches():
    settings = SynthesisSettings(num_batches=4, step_size=0.2, decay_magnitude=2.0)
    assert [settings.step_size_of(batch) for batch in (0, 2)] == pytest.approx([0.2, 0.02])


def test_equal_settings_have_equal_hashes():
    one, same = (dataclasses.replace(SETTINGS, weights=Weights(tv=2.0, priors=(("tv", 1.0),))) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != SETTINGS


def fails(*arguments):
    raise KeyError("no such class")


@pytest.mark.parametrize(
    ("field", "function", "message"),
    [
        (
            "start",
            lambda key, count, spec: jnp.zeros((count + 1, *spec.shape)),
            "the function returns an array of shape",
        ),
        ("start", lambda key, count, spec: None, "the function returns None, not an array of shape"),
        ("start", lambda key: None, "the function fails: the function() takes 1 positional argument but 3 were"),
        ("start", fails, "the function fails: 'no such class'"),
        ("targets", lambda key, classes, count: jnp.zeros((count, 1)), "the function returns an array of shape"),
        ("contrastive", lambda logits: logits, "the function returns an array of shape"),
    ],
)
def test_a_function_that_fails_or_returns_another_shape_is_refused(field, function, message):
    settings = dataclasses.replace(SETTINGS, **{field: function})
    assert message_of(checked, settings, SPEC).startswith(f"synthesis.{field}: {message}")
