"""`dfme`: gradients from answers alone, and the number of queries that they cost."""

import jax
import jax.numpy as jnp
import numpy as np
from small_methods import KEY, PLANE, WAVE, prepared, wave

from cake_jax import BlackBox, QuerySettings
from cake_jax.methods import METHODS
from cake_jax.methods.dfme import difference, forward_differences, make_round

DFME = METHODS["dfme"]


def test_a_round_needs_scores_alone_and_counts_its_queries(student):
    """3 steps of 40 inputs, each asked at 3 points, and 40 labels in the end."""
    asked = []

    def answer(x):
        asked.append(len(x))
        return np.exp(wave(x)) / np.exp(wave(x)).sum(axis=1, keepdims=True)

    box = BlackBox(answer, PLANE, QuerySettings("scores", budget=10**6, pixels=False))
    settings = prepared("dfme", num_directions=2)
    make_round(KEY, DFME.init(KEY, PLANE, settings, None), box, student, settings, 0)
    assert DFME.queries(settings, "scores", 0) == (sum(asked), 0) == (3 * 3 * 40 + 40, 0)


def test_a_forward_difference_is_the_slope_in_its_direction():
    """A smooth function in float64 against its gradient. The mean over many directions is that gradient."""
    size, count = 6, 20_000
    x = np.linspace(-1, 1, size)
    gradient = 3 * np.cos(3 * x) + x
    directions = np.random.default_rng(0).normal(size=(count, 1, size))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    points = np.concatenate([x[None, None], x + 1e-4 * directions])
    values = (np.sin(3 * points) + 0.5 * points**2).sum(-1)
    one = forward_differences(values[:2], directions[:1], 1e-4)
    np.testing.assert_allclose(one[0], size * (directions[0, 0] @ gradient) * directions[0, 0], rtol=2e-2)
    many = forward_differences(values, directions, 1e-4)
    np.testing.assert_allclose(many[0], gradient, atol=0.2)


def test_the_difference_ignores_a_constant_in_the_teachers_logits():
    """The centred logits are (-1, 1, 0) and (1, -1, 0)."""
    student, teacher = jnp.array([[0.0, 2.0, 1.0]]), jnp.array([[3.0, 1.0, 2.0]])
    assert float(difference(student, teacher)[0]) == 4.0
    log_p = jax.nn.log_softmax(teacher)
    np.testing.assert_allclose(difference(student, log_p), difference(student, teacher), rtol=1e-6)


def test_steps_raise_the_disagreement(student):
    settings = prepared("dfme", num_steps=60, balance=0.0, step_size=1e-2, num_directions=2)
    info = make_round(KEY, DFME.init(KEY, PLANE, settings, None), WAVE, student, settings, 0).info
    assert info.disagreement > 1.1 * info.disagreement_start
