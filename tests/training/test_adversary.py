"""The generator that learns in a student's steps to make student and teacher disagree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from small_training import KEY, SETTINGS, SPEC

from cake_jax import BlackBox, QuerySettings, losses, parallel
from cake_jax.models import create
from cake_jax.teachers import from_linen
from cake_jax.training import DistillationLoss, Views, ViewSettings, adversary, from_logits, trainer, views

KEYS = jax.random.split(KEY, 64)
VIEWS = ViewSettings(ask=True, fresh=("normal",), adversary=0.5, adversary_every=2)
TRAINING = dataclasses.replace(SETTINGS, epochs=4, batch_size=20, validation_fraction=0.0)
STUDENT = create("mlp", SPEC, {"width": 5, "num_hidden": 0})


@pytest.fixture(scope="module")
def teacher():
    module = create("mlp", SPEC, {"width": 5, "num_hidden": 1})
    return from_linen(module, module.init(jax.random.key(3), jnp.zeros((1, 6))), SPEC)


def states_of(teacher, state=None, **options):
    """The states of all epochs, from new weights or from `state`. Three steps make an epoch."""
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    asked = views.asked(dataclasses.replace(VIEWS, **options), TRAINING, SPEC, teacher)
    state = state or trainer.init(KEY, STUDENT, SPEC, TRAINING, make_batch=asked["make_batch"])
    labels, loss = from_logits(teacher.predict(x)), DistillationLoss(distance="l2")
    return [new for new, _ in trainer.epochs(KEY, state, STUDENT, SPEC, x, labels, TRAINING, loss=loss, **asked)]


@pytest.fixture(scope="module")
def states(teacher):
    return states_of(teacher)


def test_both_generators_make_the_first_inputs_of_a_batch(teacher):
    state, other = (adversary.init(key, SPEC, 1e-3) for key in KEYS[:2])
    state, stored = state._replace(averaged=other.params), from_logits(np.zeros((16, 3)))
    made, labels = Views(VIEWS, (), SPEC)(KEYS[:16], jnp.zeros((16, 6)), stored, (teacher, state))
    np.testing.assert_allclose(labels.logits, teacher(made), atol=1e-5)
    own_keys = jax.vmap(lambda key: jax.random.fold_in(key, 0))(KEYS[:8])
    np.testing.assert_allclose(made[:8], adversary.draw(state, own_keys, SPEC), atol=1e-5)
    of_newest = adversary.draw(state._replace(averaged=state.params), own_keys, SPEC)
    different = np.abs(of_newest - made[:8]).max(axis=1) > 1e-2
    np.testing.assert_array_equal(different, 4 * [False] + 4 * [True])


def test_steps_raise_the_distance_of_the_logits(teacher):
    def student(x):
        return jnp.zeros((len(x), 3))

    def distance(state):
        x = adversary.draw(state._replace(averaged=state.params), KEYS, SPEC)
        return float(losses.logit_distance(student(x), teacher(x), power=1).mean())

    def learn(state, keys):
        return adversary.learn(state, keys, student, teacher, 1e-2)

    step = parallel.map_devices(learn, in_axes=(None, 0), out_axes=None)
    first = state = adversary.init(KEY, SPEC, 1e-2)
    for _ in range(30):
        state = step(state, jnp.stack([KEYS] * parallel.device_count()))
    assert distance(state) > 1.3 * distance(first)
    start, average, end = (tree["Dense_0"]["kernel"] for tree in (first.params, state.averaged, state.params))
    assert 0.1 < np.abs(average - start).sum() / np.abs(end - start).sum() < 0.9


def test_the_generator_learns_in_every_second_step(states):
    """Of the three steps of an epoch, these are number 0 and number 2."""
    assert [int(state.opt_state[1].opt_state[0].count) for state in states] == [2, 4, 6, 8]


def test_a_resumed_training_ends_in_the_same_state(teacher, states):
    jax.tree.map(np.testing.assert_array_equal, states_of(teacher, states[1])[-1], states[-1])


def test_the_student_learns_from_the_generator(teacher, states):
    """With a still generator the student ends elsewhere, so its batches do come from the one that learns."""
    still = states_of(teacher, adversary_rate=1e-9)[-1]
    assert np.abs(still.params["Dense_0"]["kernel"] - states[-1].params["Dense_0"]["kernel"]).max() > 1e-4


def test_queries_of_an_epoch():
    assert VIEWS.queries(3, 20) == {"queries": 60, "gradient_queries": 40}
    assert ViewSettings(ask=True).queries(3, 20) == {"queries": 60}
    assert ViewSettings().queries(3, 20) == {}


def test_a_black_box_gives_no_gradients(teacher):
    box = BlackBox(teacher, SPEC, QuerySettings("logits", budget=9))
    assert message_of(views.asked, VIEWS, TRAINING, SPEC, box).startswith("student.views.adversary: ")
