"""IDEAL: the images of a round, their loss, and the labels that it asks for."""

import jax
import numpy as np
import pytest
from small_methods import KEY, PLANE, WAVE, prepared, student_of, wave
from smooth_teacher import SPEC as IMAGES, TEACHER as IMAGE_TEACHER, logits_of

from cake_jax import BlackBox, QuerySettings, losses
from cake_jax.methods import METHODS
from cake_jax.methods.ideal import make_images, make_round
from cake_jax.teachers import Teacher


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def loss_by_formula(logits, target):
    """Cross entropy of the guide student's logits, and 5 times the mean of p ln p over samples and classes."""
    log_p = log_softmax(logits)
    return -log_p[np.arange(len(log_p)), target].mean() + 5.0 * (np.exp(log_p) * log_p).mean()


def test_each_image_is_labelled_once(student):
    """The function is NumPy alone, so that a gradient or a compiled call would fail."""
    asked = []

    def answer(x):
        asked.append(np.array(x))
        return wave(x).argmax(axis=1)

    box = BlackBox(answer, PLANE, QuerySettings("labels", budget=40, pixels=False))
    result = make_round(KEY, (), box, student, prepared("ideal"), 0)
    np.testing.assert_array_equal(np.concatenate(asked), result.samples.x)
    assert METHODS["ideal"].queries(prepared("ideal"), "labels", 0) == (40, 0)
    assert box.queries == 40
    assert set(np.unique(result.samples.logits)) <= {0.0, 110.0}
    np.testing.assert_array_equal(np.bincount(result.samples.target), [20, 20])


def test_hard_labels_are_the_argmax_of_the_scores(student):
    soft, hard = (
        make_round(KEY, (), WAVE, student, prepared("ideal", hard_labels=hard_labels), 0).samples
        for hard_labels in (False, True)
    )
    np.testing.assert_array_equal(soft.x, hard.x)
    assert set(np.unique(hard.logits)) <= {0.0, 110.0}
    np.testing.assert_array_equal(soft.logits.argmax(axis=1), hard.logits.argmax(axis=1))
    np.testing.assert_allclose(soft.logits, wave(soft.x), atol=1e-5)


def test_images_are_those_of_the_lowest_loss(student):
    """The loss computed anew from the images is the one that is returned. More steps only lower it.

    With this large step size, the loss of step 5 is above that of step 4.
    """
    found = []
    for num_steps in (1, 4, 5, 60):
        x, target, loss, intended = make_images(KEY, student, prepared("ideal", num_steps=num_steps, step_size=2.0))
        logits = student.predict(x)
        assert float(loss) == pytest.approx(loss_by_formula(logits, target), abs=1e-5)
        assert float(intended) == pytest.approx((logits.argmax(axis=1) == target).mean())
        found.append(float(loss))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] - 0.01


def test_smoothness_lowers_the_total_variation():
    """The returned loss contains the total variation, times its weight."""
    variations = []
    for smoothness in (0.0, 10.0):
        settings = prepared("ideal", IMAGES, num_steps=20, smoothness=smoothness, features=(4, 4, 4), latent_size=4)
        x, target, loss, _ = make_images(KEY, IMAGE_TEACHER, settings)
        variations.append(float(losses.total_variation(x).mean()))
        expected = loss_by_formula(logits_of(x), target) + smoothness * variations[-1]
        assert float(loss) == pytest.approx(expected, abs=1e-4)
    assert variations[1] < 0.9 * variations[0]


def test_each_round_has_a_new_generator_and_the_same_program(student):
    traced = []

    def apply(variables, x):
        traced.append(x)
        return student.apply_fn(variables, x)

    settings, samples, counts = prepared("ideal"), [], []
    for seed, batch in ((1, 0), (2, 1)):
        guide = Teacher(student_of(PLANE, seed).variables, apply, PLANE)
        samples.append(make_round(KEY, (), WAVE, guide, settings, batch).samples)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0
    assert not np.allclose(samples[0].x, samples[1].x, atol=1e-3)
    same = make_round(KEY, (), WAVE, Teacher(student.variables, apply, PLANE), settings, 0).samples
    other_key = make_round(jax.random.key(1), (), WAVE, Teacher(student.variables, apply, PLANE), settings, 0).samples
    assert not np.allclose(same.x, other_key.x, atol=1e-3)
