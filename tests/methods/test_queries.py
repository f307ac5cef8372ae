"""The queries that a method declares are those that its rounds report, and those that the teacher really answers."""

import dataclasses

import jax
import numpy as np
import pytest
from counting import Counting
from small_methods import KEY, PLANE, WAVE, prepared, wave

from cake_jax import models
from cake_jax.methods import METHODS, Queries
from cake_jax.methods.shared.guide_student import GuideStudent
from cake_jax.methods.shared.rounds import make_rounds
from cake_jax.synthesis import SynthesisSettings
from cake_jax.teachers import Teacher, from_linen
from cake_jax.training import DISTILLATION, trainer

DATA = (np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), np.zeros(50, np.int32))


def counting_teacher(asked):
    """A teacher that adds the inputs of each evaluation to `asked`: with its gradient, or without."""

    def count(name, x):
        jax.debug.callback(lambda x: asked.__setitem__(name, asked[name] + len(x)), x)

    @jax.custom_vjp
    def logits(x):
        count("forward", x)
        return WAVE(x)

    def backward(x, cotangent):
        count("gradient", x)
        return jax.vjp(WAVE, x)[1](cotangent)

    logits.defvjp(lambda x: (WAVE(x), x), backward)
    return Teacher((), lambda variables, x: logits(x), PLANE)


def rounds_of(name, teacher, settings, batches=range(3)):
    """The reported queries of rounds one after another."""
    method = METHODS[name]
    state = method.init(KEY, PLANE, settings, DATA if method.reads_data else None)
    guide = None
    if method.guide:
        module = models.create("mlp", PLANE, {"width": 8})
        guide = GuideStudent(KEY, module, PLANE, method.guide(settings), settings.num_batches, settings.batch_size)
    made = make_rounds(KEY, method, settings, teacher, state, batches, guide)
    return [one.round.queries for one in made]


def declared(name, settings, access, batches=range(3)):
    return [METHODS[name].queries(settings, access, batch) for batch in batches]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "inversion"])
def test_the_declared_queries_are_those_that_the_teacher_answers(name, candidates, monkeypatch):
    asked = {"forward": 0, "gradient": 0}

    def predict(self, x):
        asked["forward"] += len(x)
        return wave(x)

    monkeypatch.setattr(Teacher, "predict", predict)
    settings = prepared(name, candidates=candidates, **({"budget": 4 * 40 * 10} if name == "zeroth_order" else {}))
    expected = declared(name, settings, "statistics")
    assert rounds_of(name, counting_teacher(asked), settings) == expected
    jax.effects_barrier()
    assert asked == {kind: sum(getattr(one, kind) for one in expected) for kind in asked}
    assert sum(one.forward for one in expected) >= 3 * 40


def test_inversion_declares_the_queries_of_its_rounds():
    module = models.create("mlp", PLANE, {"width": 8, "batch_norm": True})
    state = trainer.init(KEY, module, PLANE, DISTILLATION)
    teacher = from_linen(module, {"params": state.params, **state.model_state}, PLANE)
    assert rounds_of("inversion", teacher, prepared("inversion")) == [Queries(forward=40, gradient=120)] * 3


@pytest.mark.parametrize("access", ["labels", "scores"])
def test_zeroth_order_declares_what_a_black_box_answers(access):
    """Labels are searched in another way than scores, with other numbers of queries."""
    settings = prepared("zeroth_order", budget=4 * 40 * 10)
    teacher = Counting(wave, PLANE, access)
    expected = declared("zeroth_order", settings, access)
    assert rounds_of("zeroth_order", teacher, settings) == expected
    assert teacher.queries == sum(one.forward for one in expected)
    assert expected != declared("zeroth_order", settings, "scores" if access == "labels" else "labels")


def test_a_generator_is_trained_in_as_many_steps_as_its_settings_say():
    """`generative` trains it in round 0 alone, the others in each of the 4 rounds."""
    steps = {name: prepared(name).total_steps for name in METHODS if hasattr(METHODS[name].settings(), "total_steps")}
    assert steps == {"generative": 3, "adversarial": 12, "dfme": 12, "ideal": 12}
    assert not hasattr(SynthesisSettings(), "total_steps")
    assert dataclasses.replace(prepared("ideal"), num_batches=5).total_steps == 15
