"""The loop over rounds, and the guide student that trains between them."""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from small_methods import KEY, PLANE, WAVE

from cake_jax import models
from cake_jax.methods import GuideSettings, Method, Queries, Round
from cake_jax.methods.shared.guide_student import GuideStudent
from cake_jax.methods.shared.rounds import make_rounds
from cake_jax.synthesis import SynthesisSettings
from cake_jax.training import trainer
from cake_jax.types import SampleBatch

SETTINGS = SynthesisSettings(num_batches=4, batch_size=8, num_groups=2)
GUIDE = GuideSettings(epochs=2, batch_size=4)


class Info(NamedTuple):
    """Figures of a round."""

    calls: float


def make_round(key, state, teacher, student, settings, batch):
    """Random samples. The state counts the rounds, and `info` holds the state before the round."""
    rng = np.random.default_rng(batch)
    x = rng.normal(size=(settings.batch_size, *PLANE.shape)).astype(np.float32)
    ones = np.ones(settings.batch_size, np.int32)
    samples = SampleBatch(x, teacher.predict(x), ones, ones.astype(np.float32), batch * ones)
    return Round(state + 1, samples, Info(state))


def queries(settings, access, batch):
    return Queries(batch, len(access))


METHOD = Method(SynthesisSettings, make_round, queries)


def guide_student():
    module = models.create("logistic_regression", PLANE)
    return GuideStudent(KEY, module, PLANE, GUIDE, SETTINGS.num_batches, SETTINGS.batch_size)


def rounds_with(method, guide=None, state=0, batches=range(4)):
    return list(make_rounds(KEY, method, SETTINGS, WAVE, state, batches, guide))


def test_the_state_passes_from_round_to_round():
    made = rounds_with(METHOD, state=10)
    assert [one.batch for one in made] == [0, 1, 2, 3]
    assert [one.figures for one in made] == [{"calls": 10}, {"calls": 11}, {"calls": 12}, {"calls": 13}]
    assert made[-1].round.state == 14
    assert [one.round.queries for one in made] == [(batch, len(WAVE.access)) for batch in range(4)]


def test_a_round_gets_its_arguments():
    received = []

    def recorded(*arguments):
        received.append(arguments)
        return make_round(*arguments)

    rounds_with(METHOD._replace(make_round=recorded), batches=[2])
    ((key, state, teacher, student, settings, batch),) = received
    assert (state, teacher, student, settings, batch) == (0, WAVE, None, SETTINGS, 2)
    assert key is KEY


def test_a_guide_student_trains_on_all_samples_so_far(monkeypatch):
    calls, epochs = [], trainer.epochs

    def watched(key, state, module, spec, x, labels, settings, **options):
        calls.append((int(state.epoch), settings, np.array(x), np.array(labels.classes), np.array(labels.logits)))
        return epochs(key, state, module, spec, x, labels, settings, **options)

    monkeypatch.setattr(trainer, "epochs", watched)
    samples = [one.round.samples for one in rounds_with(METHOD, guide_student())]
    assert [(done, settings.epochs) for done, settings, *_ in calls] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    for count, (_, settings, x, classes, logits) in enumerate(calls, start=1):
        assert dataclasses.replace(settings, epochs=2) == GUIDE.training()
        np.testing.assert_array_equal(x, np.concatenate([batch.x for batch in samples[:count]]))
        np.testing.assert_array_equal(logits, np.concatenate([batch.logits for batch in samples[:count]]))
        np.testing.assert_array_equal(classes, logits.argmax(axis=1))


def test_a_round_gets_the_guide_student_as_it_is_then():
    students = []

    def recorded(key, state, teacher, student, settings, batch):
        students.append(jax.device_get(student.variables["params"]["Dense_0"]["kernel"]))
        return make_round(key, state, teacher, student, settings, batch)

    guide = guide_student()
    untrained = guide.model.variables["params"]["Dense_0"]["kernel"]
    made = rounds_with(METHOD._replace(make_round=recorded), guide)
    np.testing.assert_array_equal(students[0], untrained)
    assert all(np.abs(later - before).max() > 1e-3 for before, later in itertools.pairwise(students))
    for one in made:
        assert set(one.figures) == {"calls", "student_loss", "student_accuracy"}
    losses = [one.figures["student_loss"] for one in made]
    assert losses[-1] < losses[0]


def test_a_resumed_guide_student_is_bitwise_the_same():
    whole, resumed, first = guide_student(), guide_student(), guide_student()
    made = rounds_with(METHOD, whole)
    rounds_with(METHOD, first, batches=range(2))
    saved = jax.tree.map(np.array, first.state)
    resumed.resume(saved, [one.round.samples for one in made[:2]])
    figures = [one.figures for one in rounds_with(METHOD, resumed, state=2, batches=range(2, 4))]
    assert figures == [one.figures for one in made[2:]]
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


def test_the_guide_students_weights_depend_on_the_key_of_the_synthesis():
    other = GuideStudent(jax.random.key(1), models.create("logistic_regression", PLANE), PLANE, GUIDE, 4, 8)
    kernels = [guide.model.variables["params"]["Dense_0"]["kernel"] for guide in (guide_student(), other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_one_program_trains_the_guide_student_in_all_rounds():
    traced = []

    class Counted(type(models.create("logistic_regression", PLANE))):
        def __call__(self, x, train=False):
            traced.append((x.shape, train))
            return super().__call__(x, train)

    guide = GuideStudent(KEY, Counted(2), PLANE, GUIDE, SETTINGS.num_batches, SETTINGS.batch_size)
    made = make_rounds(KEY, METHOD, SETTINGS, WAVE, 0, range(4), guide)
    next(made)
    after_one = len([trace for trace in traced if trace[1]])
    assert after_one > 0
    list(made)
    assert len([trace for trace in traced if trace[1]]) == after_one


@pytest.mark.parametrize("batches", [[3, 1], []])
def test_rounds_are_made_in_the_given_order(batches):
    assert [one.batch for one in rounds_with(METHOD, batches=batches)] == batches
