"""The gradient search: directions, the estimated Jacobian, equality with CAKE, and requests to the teacher."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import Counting
from small_zeroth_order import KEY, SETTINGS, exact, make_round, prepared
from smooth_teacher import SIZE, SPEC, TEACHER, jacobian_of, logits_of

from cake_jax import BlackBox, QuerySettings
from cake_jax.methods.zeroth_order import gradient_search
from cake_jax.methods.zeroth_order.gradient_search import correct, draw_directions
from cake_jax.synthesis import Weights, draw_batch, minibatch
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec

START = np.random.default_rng(1).normal(size=(2, 3, *SPEC.shape)).astype(np.float32)
MATRIX = np.random.default_rng(3).normal(size=(SIZE, 5)).astype(np.float32)


def linear(x):
    return x.reshape(len(x), -1) @ MATRIX


def settings_of_a_look(num_directions, **fields):
    return prepared(budget=10**6, num_looks=1, num_directions=num_directions, **fields)


def look(teacher, settings, x=START, seed=0, jacobian=None):
    """A look at sets `[S, G, *shape]`. Returns the linear model, and the samples `[S G, *shape]`."""
    keys = jax.random.split(jax.random.key(seed), len(x))
    samples = x.reshape(-1, *teacher.spec.shape)
    if jacobian is None:
        jacobian = jnp.zeros((len(samples), teacher.spec.num_classes, x[0, 0].size))
    return gradient_search.look(keys, teacher, x, jacobian, settings), samples


@pytest.mark.parametrize("kind", ["coordinate", "smooth"])
def test_directions_are_orthonormal_and_all_of_them_are_a_basis(kind):
    some, every = (draw_directions(KEY, q, SPEC.shape, kind).reshape(q, -1) for q in (5, SIZE))
    np.testing.assert_allclose(some @ some.T, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(every @ every.T, np.eye(SIZE), atol=1e-5)


def test_smooth_directions_are_cosines_of_one_channel_and_mostly_of_low_frequency():
    directions = np.asarray(draw_directions(KEY, 60, (8, 8, 3), "smooth"))
    steps = (np.arange(8) + 0.5) * np.pi / 8
    waves = np.stack([np.cos(k * steps) / np.sqrt(8 if k == 0 else 4) for k in range(8)])
    table = np.abs(np.einsum("qhwc,uh,vw->quvc", directions, waves, waves)).reshape(60, 8, 8, 3)
    np.testing.assert_allclose(np.sort(table.reshape(60, -1))[:, -1], 1, atol=1e-5)
    frequency = [np.hypot(*np.unravel_index(row.argmax(), (8, 8, 3))[:2]) for row in table]
    everywhere = np.hypot(*np.mgrid[:8, :8]).mean()
    assert np.mean(frequency) < 0.75 * everywhere
    assert len({np.unravel_index(row.argmax(), (8, 8, 3))[2] for row in table}) == 3


def test_a_correction_by_hand():
    """Along the second direction, the first logit rose by 0.6 + 2.4 = 3, not by 1; the second by 7.2, not by 2."""
    jacobian = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    directions = jnp.array([[0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    slopes = jnp.array([[7.0, 8.0], [1.0, 2.0]])
    expected = [[1 - 2 * 0.6, 7, 3 - 2 * 0.8], [4 - 5.2 * 0.6, 8, 6 - 5.2 * 0.8]]
    np.testing.assert_allclose(correct(jacobian, slopes, directions), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["coordinate", "smooth"])
@pytest.mark.parametrize("antithetic", [False, True])
def test_all_directions_give_the_whole_jacobian(kind, antithetic):
    model, x = look(Counting(), settings_of_a_look(SIZE, directions=kind, antithetic=antithetic, sigma=1e-2))
    np.testing.assert_allclose(model.jacobian, jacobian_of(x), atol=1e-3 if antithetic else 2e-2)
    np.testing.assert_allclose(model.logits, logits_of(x), atol=1e-6)
    near = x + np.float32(1e-3)
    np.testing.assert_allclose(model.as_teacher(SPEC)(near), logits_of(near), atol=1e-3)


def test_differences_of_a_parabola():
    """The derivative of x^2 is 2 x. One-sided differences find it at x + sigma / 2."""
    parabola = Counting(lambda x: np.square(x.reshape(len(x), -1))[:, :5])
    for antithetic, error in ((False, 0.2), (True, 0.0)):
        settings = settings_of_a_look(SIZE, directions="coordinate", antithetic=antithetic, sigma=0.2)
        model, x = look(parabola, settings)
        slopes = np.diagonal(np.asarray(model.jacobian)[:, :, :5], axis1=1, axis2=2)
        np.testing.assert_allclose(slopes, 2 * x.reshape(len(x), -1)[:, :5] + error, atol=1e-4)


def test_looks_at_a_linear_teacher_add_up():
    """The error is orthogonal to all that was measured. So the squares of error and change add up (Pythagoras)."""
    settings = settings_of_a_look(8, directions="smooth", sigma=1.0)
    first, _ = look(Counting(linear), settings)
    second, _ = look(Counting(linear), settings, seed=1, jacobian=first.jacobian)
    errors = [np.linalg.norm(model.jacobian - MATRIX.T) for model in (first, second)]
    assert errors[1] < errors[0] < np.linalg.norm(np.tile(MATRIX.T, (6, 1, 1)))
    change = np.linalg.norm(second.jacobian - first.jacobian)
    assert errors[0] ** 2 == pytest.approx(errors[1] ** 2 + change**2, rel=1e-4)


def test_the_mean_over_draws_is_the_gradient():
    """D / q times the estimate is unbiased if directions are drawn evenly. The mean of cos^2 is q / D."""
    settings, draws = settings_of_a_look(4, directions="coordinate", antithetic=True, sigma=1e-2), 400
    model, _ = look(Counting(), settings, x=np.repeat(START[:1], draws, axis=0))
    truth = jacobian_of(START[0])[:, 0]
    estimates = np.asarray(model.jacobian, np.float64)[:, 0].reshape(draws, 3, SIZE) * SIZE / 4
    error = estimates.std(axis=0) / np.sqrt(draws)
    deviation = (estimates.mean(axis=0) - truth) / np.maximum(error, 1e-6)
    assert np.abs(deviation).max() < 5
    assert 0.8 < deviation.std() < 1.2
    cosine = np.sum(estimates * truth, axis=2) / np.linalg.norm(estimates, axis=2) / np.linalg.norm(truth, axis=1)
    assert np.mean(cosine**2) == pytest.approx(4 / SIZE, rel=0.1)


def test_more_directions_estimate_the_gradient_better():
    x = np.random.default_rng(2).normal(size=(20, 3, *SPEC.shape)).astype(np.float32)
    cosines = []
    for count in (2, 8, SIZE):
        model, samples = look(Counting(), settings_of_a_look(count), x=x)
        ours, truth = (np.asarray(j)[:, 0] for j in (model.jacobian, jacobian_of(samples)))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(truth, axis=1)
        cosines.append(np.mean(np.sum(ours * truth, axis=1) / norms))
    assert cosines == sorted(cosines)
    assert cosines[0] < 0.6
    assert cosines[-1] > 0.999


@pytest.mark.parametrize(
    ("change", "directions"),
    [
        ({}, "smooth"),
        ({"optimizer": "adam"}, "coordinate"),
        ({"langevin_temperature": 0.01}, "coordinate"),
        ({"contrastive": "snn", "weights": Weights(cls=9.0, contr=9.0, tv=1.0, entropy=20.0)}, "smooth"),
    ],
    ids=["cake", "adam", "lake", "coupled"],
)
def test_with_all_directions_the_samples_are_those_of_the_white_box(change, directions):
    settings = exact(schedule="constant", directions=directions, **change)
    white, info = minibatch(KEY, TEACHER, settings, 1)
    black = make_round(Counting(), settings, 1)
    start, _ = draw_batch(KEY, settings, SPEC, 1)
    assert np.abs(white.x - start).max() > 0.1, "the samples must have moved"
    np.testing.assert_allclose(black.samples.x, white.x, atol=2e-3)
    np.testing.assert_allclose(black.samples.logits, white.logits, atol=2e-2)
    for name in ("target", "set_index", "step_size"):
        np.testing.assert_array_equal(getattr(black.samples, name), getattr(white, name))
    np.testing.assert_allclose(black.info, info, rtol=2e-2)


def test_between_looks_the_steps_are_those_on_a_linear_teacher():
    settings = prepared(budget=10**6, num_looks=1, num_directions=SIZE, sigma=1.0, trust=9.0)
    white, _ = minibatch(KEY, from_function(lambda x: 0.3 * x.reshape(len(x), -1) @ MATRIX, SPEC), settings, 0)
    teacher = Counting(lambda x: 0.3 * linear(x))
    black = make_round(teacher, settings)
    np.testing.assert_allclose(black.samples.x, white.x, atol=1e-4)
    assert teacher.queries == 15 * (1 + SIZE + 1)


def test_a_look_starts_from_the_jacobian_of_the_look_before(monkeypatch):
    given, found, original = [], [], gradient_search.look

    def recorded(key, teacher, x, jacobian, settings):
        model = original(key, teacher, x, jacobian, settings)
        given.append(jacobian)
        found.append(model.jacobian)
        return model

    monkeypatch.setattr(gradient_search, "look", recorded)
    make_round(Counting(), prepared(budget=10**6, num_looks=3, num_directions=4))
    np.testing.assert_array_equal(given[0], 0)
    np.testing.assert_array_equal(given[1:], found[:-1])
    ranks = [int(np.linalg.matrix_rank(jacobian[:3].reshape(-1, SIZE), tol=1e-3)) for jacobian in found]
    assert ranks[0] == 4, "the samples of a set share their directions"
    assert ranks[0] < ranks[1] < ranks[2], "each look has other directions"


def test_no_sample_leaves_the_trust_region():
    """Two looks, so that a sample may move twice as far as the radius."""
    settings = prepared(step_size=5.0, num_steps=20, num_looks=2, num_directions=8, trust=0.25)
    start, _ = draw_batch(KEY, settings, SPEC, 0)
    moved = np.sqrt(np.square(make_round(Counting(), settings).samples.x - start).mean(axis=(1, 2, 3)))
    assert moved.max() <= 2 * 0.25 + 1e-5
    assert moved.max() > 0.25 + 1e-5, "the second look has a new region"


def test_a_black_box_with_exactly_the_budget_suffices():
    settings = prepared(num_batches=1, budget=15 * 30)
    box = BlackBox(TEACHER, SPEC, QuerySettings("logits", 15 * settings.queries_per_sample))
    black = make_round(box, settings)
    assert box.queries == 15 * settings.queries_per_sample
    white = make_round(TEACHER, settings).samples
    np.testing.assert_allclose(black.samples.x, white.x, atol=1e-4)
    np.testing.assert_allclose(black.samples.logits, white.logits, atol=1e-3)


def test_scores_are_descended_as_logarithms():
    box = BlackBox(TEACHER, SPEC, QuerySettings("scores", 10**6))
    logarithm = from_function(lambda x: jax.nn.log_softmax(TEACHER(x)), SPEC)
    white, _ = minibatch(KEY, logarithm, exact(), 0)
    np.testing.assert_allclose(make_round(box, exact()).samples.x, white.x, atol=2e-3)


def test_a_request_takes_256_mib_at_most():
    """All directions of 8 inputs of 2,900 values are 269 MB. The answers of two requests make one Jacobian."""
    size, groups = 2_900, 8
    spec = DataSpec((size,), groups)
    matrix = np.random.default_rng(0).normal(size=(size, groups)).astype(np.float32)
    teacher = Counting(lambda x: x[:, :40] @ matrix[:40], spec)
    fields = {"num_batches": 1, "batch_size": groups, "num_groups": groups, "num_steps": 1, "num_directions": size}
    settings = prepared(spec, weights=Weights(), budget=10**9, num_looks=1, sigma=1.0, **fields)
    x = np.random.default_rng(1).normal(size=(1, groups, size)).astype(np.float32)
    model, _ = look(teacher, settings, x=x)
    own, *requests = teacher.calls
    assert own == groups
    assert len(requests) == 2
    assert sum(requests) == groups * size
    assert max(requests) * size * 4 <= 2**28 < 1.01 * max(requests) * size * 4
    expected = np.zeros((groups, size))
    expected[:, :40] = matrix[:40].T
    np.testing.assert_allclose(model.jacobian, np.broadcast_to(expected, model.jacobian.shape), atol=1e-3)


@pytest.mark.parametrize("search", ["gradient", "boundary"])
def test_a_round_depends_on_its_key_and_number_alone(search):
    settings = prepared(budget=45 * 10, search=search)
    first, again, other, later = (
        make_round(Counting(), settings, batch, jax.random.key(seed)).samples.x
        for seed, batch in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, later)


def test_langevin_noise_is_that_of_the_white_box():
    """Without a loss, the noise alone moves the samples."""
    fields = {"langevin_temperature": 1.0, "weights": Weights(cls=0.0, contr=0.0)}
    settings = dataclasses.replace(prepared(num_looks=2, num_directions=2, **fields), trust=100.0)
    assert SETTINGS.num_steps == settings.num_steps == 4
    white, _ = minibatch(KEY, TEACHER, settings, 0)
    np.testing.assert_allclose(make_round(Counting(), settings).samples.x, white.x, atol=1e-5)
