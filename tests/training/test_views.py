"""Views that the teacher labels in each step: fresh inputs, mixup, cutmix, and their settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from small_training import KEY, SETTINGS, SPEC

from cake_jax import BlackBox, QuerySettings, distill, losses
from cake_jax.models import create
from cake_jax.starts import STARTS
from cake_jax.teachers import from_linen
from cake_jax.training import DistillationLoss, Labels, Views, ViewSettings, from_logits, trainer
from cake_jax.training.views import checked, mixed
from cake_jax.types import DataSpec, SampleBatch

IMAGES = DataSpec((6, 8, 1), 3)
KEYS = jax.random.split(KEY, 2000)


def brightness(x):
    """A teacher of three classes, whose logits are multiples of the mean."""
    return x.reshape(len(x), -1).mean(axis=1, keepdims=True) * jnp.arange(3.0)


def views_of(x, augment=(), spec=IMAGES, **settings):
    """The views of inputs and their labels."""
    views = Views(ViewSettings(ask=True, **settings), augment, spec)
    return views(KEYS[: len(x)], jnp.asarray(x), from_logits(np.zeros((len(x), 3))), brightness)


def labelled(x, logits):
    """Samples as a method makes them."""
    return SampleBatch(x, logits, np.zeros(len(x), np.int32), np.ones(len(x), np.float32), np.arange(len(x)))


def constant_images(count):
    """Image i has the value i everywhere."""
    return np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, *IMAGES.shape))


def test_without_changes_the_teacher_labels_the_stored_inputs():
    x = constant_images(5)
    views, labels = views_of(x)
    np.testing.assert_array_equal(views, x)
    np.testing.assert_allclose(labels.logits, np.arange(5)[:, None] * np.arange(3))
    np.testing.assert_array_equal(labels.classes, [0, 2, 2, 2, 2])


def test_fresh_inputs_take_equal_shares_of_the_last_places():
    x = constant_images(10)
    views, labels = views_of(x, fresh=("normal", "smooth", "contrasted"), fresh_share=0.6)
    np.testing.assert_array_equal(views[:4], x[:4])
    for place, name in enumerate(("normal", "normal", "smooth", "smooth", "contrasted", "contrasted"), start=4):
        key = jax.random.split(KEYS[place], 4)[0]
        np.testing.assert_allclose(views[place], STARTS[name].draw(key, 1, IMAGES)[0], atol=1e-6)
    np.testing.assert_allclose(labels.logits, brightness(views), rtol=1e-5)


def test_images_are_augmented_before_the_teacher_answers():
    x = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (40, 6, 8, 1))
    views, labels = views_of(x, augment=("flip",))
    mirrored = np.all(np.asarray(views) == x[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(mirrored | np.all(np.asarray(views) == x, axis=(1, 2, 3)))
    assert 5 < mirrored.sum() < 35
    np.testing.assert_allclose(labels.logits, brightness(views), rtol=1e-5)


def test_mixup_takes_a_uniform_part_of_another_input():
    """Inputs are unit vectors, so a mixed one shows the weights of both."""
    x = np.eye(2000, dtype=np.float32)
    views = np.asarray(mixed(KEYS, jnp.asarray(x), 0.25, lambda key, shape: jax.random.uniform(key)))
    own = np.diag(views)
    np.testing.assert_allclose(views.sum(axis=1), 1, rtol=1e-5)
    assert np.all((views > 0).sum(axis=1) <= 2)
    changed = own < 1
    assert 0.2 < changed.mean() < 0.3
    # The mean and variance of a uniform weight.
    assert own[changed].mean() == pytest.approx(0.5, abs=0.06)
    assert own[changed].var() == pytest.approx(1 / 12, abs=0.02)
    others = np.argmax(views - np.diag(own), axis=1)[changed]
    assert len(np.unique(others)) > 0.6 * changed.sum(), "partners are drawn anew for each input"


def test_cutmix_replaces_a_rectangle_of_uniform_area():
    views = np.asarray(views_of(constant_images(2000), cutmix=1.0)[0])[..., 0]
    areas = []
    for own, view in enumerate(views):
        other = view != own
        rows, columns = np.nonzero(other.any(axis=1))[0], np.nonzero(other.any(axis=0))[0]
        if len(rows):
            inside = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert np.all(inside == inside[0, 0])
            assert other.sum() == inside.size, "the replaced part is a rectangle"
        areas.append(other.mean())
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)


def test_a_student_that_asks_learns_from_fresh_inputs_alone():
    """The stored samples are all the same, so only the fresh inputs can teach."""
    module = create("mlp", SPEC, {"width": 5, "num_hidden": 0})
    teacher = from_linen(module, module.init(jax.random.key(3), jnp.zeros((1, 6))), SPEC)
    x = np.ones((400, 6), np.float32)
    samples = labelled(x, teacher.predict(x))
    test = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    settings = dataclasses.replace(SETTINGS, epochs=20)
    views = ViewSettings(ask=True, fresh=("normal",), fresh_share=1.0)
    errors = []
    for options in ({}, {"views": views, "teacher": teacher}):
        student = distill(KEY, module, samples, settings, loss=DistillationLoss(distance="l2"), **options)
        errors.append(float(losses.logit_distance(student.predict(test), teacher.predict(test), power=2).mean()))
    assert errors[1] < 0.02 < 0.1 < errors[0]


@pytest.mark.parametrize("steps", ["together", "one by one"])
def test_a_black_box_labels_the_same_views_as_a_teacher_in_the_program(steps, monkeypatch):
    """Answers that are logits lose nothing. With few bytes in a call, each step asks on its own."""
    if steps == "one by one":
        monkeypatch.setattr(trainer, "_CALL_BYTES", 1)
    module = create("mlp", SPEC, {"width": 5, "num_hidden": 1})
    teacher = from_linen(module, module.init(jax.random.key(3), jnp.zeros((1, 6))), SPEC)
    x = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)
    views = ViewSettings(ask=True, fresh=("normal",), fresh_share=1.0, mixup=0.5)
    box = BlackBox(teacher, SPEC, QuerySettings("logits", budget=1000))
    settings = dataclasses.replace(SETTINGS, epochs=3, batch_size=30, validation_fraction=0.0)
    students = [
        distill(KEY, module, labelled(x, teacher.predict(x)), settings, views=views, teacher=labeller)
        for labeller in (teacher, box)
    ]
    weights = [student.variables for student in students]
    jax.tree.map(lambda white, black: np.testing.assert_allclose(white, black, atol=1e-5), *weights)
    assert box.queries == 3 * 90


@pytest.mark.parametrize(
    ("settings", "spec", "expected"),
    [
        ({"fresh": ("leaves",)}, SPEC, "student.views.fresh: inputs of shape (6,) are no images"),
        ({"fresh": ("stroke",)}, IMAGES, "student.views.fresh: 'stroke' is not one of normal, "),
        ({"mixup": 1.5}, SPEC, "student.views.mixup: 1.5 is not in [0, 1]"),
        ({"cutmix": 0.5}, SPEC, "student.views.cutmix: inputs of shape (6,) are no images"),
        ({"mixup": 0.5, "ask": False}, SPEC, "student.views.mixup: only the teacher can label such inputs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, spec, expected):
    assert message_of(checked, ViewSettings(**{"ask": True, **settings}), spec).startswith(expected)


def test_a_student_that_asks_needs_a_teacher():
    samples = labelled(np.ones((4, 6), np.float32), np.zeros((4, 3), np.float32))
    module = create("mlp", SPEC)
    assert message_of(distill, KEY, module, samples, views=ViewSettings(ask=True)).startswith("views: ")


@pytest.mark.parametrize(("distance", "expected"), [("l1", 4 / 3), ("l2", 2.0)])
def test_distances_of_logits_by_hand(distance, expected):
    """The centred difference of the logits is (2, -1, -1). Adding a number to all logits changes nothing."""
    teacher, student = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 2.0, 3.0]])
    labels = Labels(np.array([2]), teacher)
    assert DistillationLoss(distance=distance)(student, labels) == pytest.approx([expected])
    assert DistillationLoss(distance=distance)(student + 7, labels) == pytest.approx([expected], rel=1e-5)
    cross_entropy = np.log(np.exp([4.0, 2.0, 3.0]).sum()) - 3.0
    both = DistillationLoss(distance=distance, hard_weight=0.25)(student, labels)
    assert both == pytest.approx([0.75 * expected + 0.25 * cross_entropy])
