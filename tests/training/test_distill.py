"""`cake_jax.distill`: a student from labelled samples."""

import dataclasses

import jax
import numpy as np
import pytest
from cake_errors import message_of
from small_training import KEY

import cake_jax
from cake_jax import DistillationLoss, TrainSettings
from cake_jax.teachers import from_function
from cake_jax.training import classification_loss, from_logits, trainer
from cake_jax.types import DataSpec, SampleBatch

SETTINGS = TrainSettings(epochs=1, batch_size=20, learning_rate=0.05)


def samples_of(x, logits):
    ones = np.ones(len(x), np.int32)
    return SampleBatch(x, logits, ones, ones.astype(np.float32), ones)


@pytest.fixture(scope="module")
def samples(points):
    x, _ = points
    return samples_of(x, (3 * x[:, :3]).astype(np.float32))


def same_variables(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_plain_settings_train_with_the_distillation_loss(module, samples):
    student = cake_jax.distill(KEY, module, samples, SETTINGS)
    same_variables(student, cake_jax.distill(KEY, module, samples, SETTINGS, loss=DistillationLoss()))
    assert student.spec == DataSpec((6,), 3)
    init_key, train_key = jax.random.split(KEY)
    start = trainer.init(init_key, module, student.spec, SETTINGS)
    labels = from_logits(samples.logits)
    options = {"loss": DistillationLoss()}
    ((state, _),) = trainer.epochs(train_key, start, module, student.spec, samples.x, labels, SETTINGS, **options)
    same_variables(student, trainer.as_model(module, state, student.spec))


def test_a_student_agrees_with_the_labels(module, samples):
    settings = dataclasses.replace(SETTINGS, epochs=60, validation_fraction=0.0)
    student = cake_jax.distill(KEY, module, samples, settings, loss=DistillationLoss(2.0))
    assert np.mean(student.predict(samples.x).argmax(axis=1) == samples.logits.argmax(axis=1)) > 0.9


def test_another_loss_is_used(module, samples):
    """The classification loss depends on the argmax alone, and the distillation loss on all logits."""
    doubled = samples._replace(logits=2 * samples.logits)
    students = [
        cake_jax.distill(KEY, module, chosen, SETTINGS, loss=loss)
        for loss in (classification_loss, DistillationLoss())
        for chosen in (samples, doubled)
    ]
    same_variables(*students[:2])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), students[2].variables, students[3].variables)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_a_student_carries_the_given_specification(module, samples):
    spec = DataSpec((6,), 3, mean=(2.0,), std=(0.5,), class_names=("a", "b", "c"))
    assert cake_jax.distill(KEY, module, samples, SETTINGS, spec=spec).spec is spec


def test_a_student_carries_its_teachers_specification(module, samples):
    spec = DataSpec((6,), 3, mean=(2.0,), std=(0.5,))
    teacher = from_function(lambda x: x[:, :3], spec)
    assert cake_jax.distill(KEY, module, samples, SETTINGS, teacher=teacher).spec is spec


def test_settings_out_of_range_are_refused(module, samples):
    message = message_of(cake_jax.distill, KEY, module, samples, TrainSettings(epochs=0))
    assert message == "student.epochs: 0 must be above 0"
