"""The methods that train a generator: the queries that they count, and the settings that they refuse."""

import jax
import numpy as np
import pytest
from cake_errors import message_of
from small_methods import KEY, PLANE, WAVE, prepared, wave
from smooth_teacher import SPEC as IMAGES

from cake_jax.methods import METHODS
from cake_jax.synthesis import Weights
from cake_jax.teachers import Teacher, from_function


@pytest.mark.parametrize("name", ["adversarial", "generative"])
def test_queries_of_a_round_are_those_that_the_teacher_answers(name, student, monkeypatch):
    """Gradient queries are the inputs of the teacher in the compiled steps. Labels come from `predict`."""
    differentiated, labelled = [], []

    def counted(x):
        jax.debug.callback(lambda x: differentiated.append(len(x)), x)
        return WAVE(x)

    teacher = from_function(counted, PLANE)
    monkeypatch.setattr(Teacher, "predict", lambda self, x: labelled.append(len(x)) or wave(x))
    method, settings = METHODS[name], prepared(name)
    state = method.init(KEY, PLANE, settings, None)
    jax.effects_barrier()
    for batch, gradient in ((0, 120), (1, 120 if name == "adversarial" else 0)):
        differentiated.clear()
        labelled.clear()
        state = method.make_round(KEY, state, teacher, student, settings, batch).state
        jax.effects_barrier()
        declared = method.queries(settings, teacher.access, batch)
        assert (sum(labelled), sum(differentiated)) == declared == (40, gradient)


@pytest.mark.parametrize("name", ["adversarial", "dfme", "generative", "ideal"])
def test_the_step_size_is_constant(name):
    settings = prepared(name, step_size=0.25)
    assert [settings.step_size_of(batch) for batch in (0, 3)] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("ideal", {"num_steps": 0}, "methods.ideal.num_steps: 0 must be above 0"),
        ("ideal", {"step_size": -1.0}, "methods.ideal.step_size: -1.0 must be above 0"),
        ("ideal", {"latent_size": 0}, "methods.ideal.latent_size: 0 must be above 0"),
        ("ideal", {"spread": -1.0}, "methods.ideal.spread: -1.0 is below 0"),
        ("ideal", {"blur": -1.0}, "methods.ideal.blur: -1.0 is below 0"),
        ("ideal", {"evenness": -1.0}, "methods.ideal.evenness: -1.0 is below 0"),
        ("ideal", {"smoothness": -1.0}, "methods.ideal.smoothness: -1.0 is below 0"),
        ("ideal", {"smoothness": 1.0}, "methods.ideal.smoothness: inputs are no images; set it to 0"),
        ("ideal", {"beta1": 1.0}, "methods.ideal.beta1: 1.0 is not in [0, 1)"),
        ("ideal", {"beta2": -0.1}, "methods.ideal.beta2: -0.1 is not in [0, 1)"),
        ("ideal", {"features": (4, 0)}, "methods.ideal.features: (4, 0) must be above 0"),
        ("adversarial", {"disagreement": "l2"}, "methods.adversarial.disagreement: 'l2' is not one of kl, l1"),
        ("adversarial", {"balance": -1.0}, "methods.adversarial.balance: -1.0 is below 0"),
        ("dfme", {"num_directions": 0}, "methods.dfme.num_directions: 0 must be above 0"),
        ("dfme", {"epsilon": 0.0}, "methods.dfme.epsilon: 0.0 must be above 0"),
        ("dfme", {"balance": -1.0}, "methods.dfme.balance: -1.0 is below 0"),
        ("generative", {"repel": -1.0}, "methods.generative.repel: -1.0 is below 0"),
        ("generative", {"weights": Weights(entropy=1.0)}, "synthesis.weights.entropy: generative takes neither"),
    ],
)
def test_values_out_of_range_are_refused_by_field(name, fields, message):
    assert message_of(prepared, name, **fields).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "methods.ideal.student.epochs: 0 must be above 0"),
        ({"augment": ("flip",)}, "methods.ideal.student.augment: 'flip' "),
    ],
)
def test_settings_of_the_guide_student_are_refused_by_field(fields, message):
    student = METHODS["ideal"].settings().student
    guide = type(student)(**{**vars(student), **fields})
    assert message_of(prepared, "ideal", student=guide).startswith(message)


def test_generators_of_images_need_three_features():
    message = message_of(prepared, "ideal", IMAGES, features=(4, 4))
    assert message == "methods.ideal.features: (4, 4) are not 3 numbers, as images need"
    assert prepared("ideal", IMAGES, features=()).features == ()
    assert prepared("ideal", PLANE, features=(4, 4)).features == (4, 4)


def test_samples_without_target_classes_have_the_class_minus_one(student):
    settings = prepared("adversarial")
    state = METHODS["adversarial"].init(KEY, PLANE, settings, None)
    samples = METHODS["adversarial"].make_round(KEY, state, WAVE, student, settings, 2).samples
    np.testing.assert_array_equal(samples.target, np.full(40, -1))
    np.testing.assert_array_equal(samples.set_index, np.repeat(np.arange(40, 60), 2))
