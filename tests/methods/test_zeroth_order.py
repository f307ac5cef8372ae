"""CAKE from outputs alone: the estimated Jacobian, sameness with CAKE, queries to the last one, pairs of labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax import boundary, methods, synthesis, zeroth_order
from cake_jax.methods.method import combined
from cake_jax.methods.zeroth_order.gradient_search import ZerothOrderSettings, correct, draw_directions
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.teachers import BlackBox, QuerySettings, from_function
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((4, 4, 2), 5)
SIZE = 32
COMMON = SynthesisSettings(
    num_batches=3, batch_size=15, num_groups=3, num_steps=4, step_size=0.05, weights=Weights(cls=2.0, contr=0.5, tv=3.0)
)
METHOD = methods.get("zeroth_order")


def settings(common=COMMON, spec=SPEC, **own):
    return METHOD.settings(common, {**METHOD.defaults, **own}, spec)


def exact(common=COMMON, **own):
    """All directions at every step: nothing is left of the estimate but the differences' error."""
    return settings(
        common, budget=10**6, num_looks=common.num_steps, num_directions=SIZE, antithetic=True, sigma=0.01, **own
    )


@pytest.fixture(scope="module")
def teacher():
    """A smooth one, so that differences are near to derivatives."""
    first_key, second_key = jax.random.split(jax.random.key(7))
    first = jax.random.normal(first_key, (SIZE, 8)) / np.sqrt(SIZE)
    second = 2 * jax.random.normal(second_key, (8, 5))
    return from_function(lambda x: jnp.tanh(x.reshape(len(x), -1) @ first) @ second, SPEC)


class Counting(BlackBox):
    """A black box that counts every row, also one that it has answered before, and how many of them came at once."""

    def __init__(self, teacher, answers="logits"):
        self.teacher, self.spec, self.answers, self.calls = teacher, teacher.spec, answers, []

    def __call__(self, x):
        self.calls.append(len(x))
        return np.asarray(self.teacher(jnp.asarray(x)))

    @property
    def queries(self):
        return sum(self.calls)


def jacobian_at(teacher, x):
    """J of each input, `[N, K, D]`."""
    return jax.vmap(jax.jacobian(lambda x: teacher(x[None])[0]))(x).reshape(len(x), teacher.spec.num_classes, -1)


def look(teacher, own, seed=0, sets=2, jacobian=None):
    """A look at `sets` sets of 3, and where it was taken."""
    x = jax.random.normal(jax.random.key(1), (sets, 3, *SPEC.shape))
    keys = jax.random.split(jax.random.key(seed), sets)
    if jacobian is None:
        jacobian = jnp.zeros((3 * sets, 5, SIZE))
    return zeroth_order.look(keys, teacher, x, jacobian, own), x.reshape(-1, *SPEC.shape)


def with_directions(count, **own):
    return settings(budget=10**6, num_looks=1, num_directions=count, **own)


@pytest.mark.parametrize("kind", ["coordinate", "smooth"])
def test_directions_are_orthonormal_and_all_of_them_a_basis(kind):
    some, every = (draw_directions(jax.random.key(0), q, SPEC.shape, kind).reshape(q, -1) for q in (5, SIZE))
    np.testing.assert_allclose(some @ some.T, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(every @ every.T, np.eye(SIZE), atol=1e-5)


def test_smooth_directions_are_cosines_of_one_channel_and_mostly_of_low_frequency():
    directions = np.asarray(draw_directions(jax.random.key(0), 60, (8, 8, 3), "smooth"))
    steps = (np.arange(8) + 0.5) * np.pi / 8
    waves = np.stack([np.cos(k * steps) / np.sqrt(8 if k == 0 else 4) for k in range(8)])
    table = np.abs(np.einsum("qhwc,uh,vw->quvc", directions, waves, waves)).reshape(60, 8, 8, 3)
    np.testing.assert_allclose(np.sort(table.reshape(60, -1))[:, -1], 1, atol=1e-5)
    frequency = [np.hypot(*np.unravel_index(row.argmax(), (8, 8, 3))[:2]) for row in table]
    everywhere = np.hypot(*np.mgrid[:8, :8]).mean()
    assert np.mean(frequency) < 0.75 * everywhere
    assert len({np.unravel_index(row.argmax(), (8, 8, 3))[2] for row in table}) == 3


def test_a_correction_by_hand():
    jacobian = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    directions = jnp.array([[0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    slopes = jnp.array([[7.0, 8.0], [1.0, 2.0]])  # of both logits along either direction
    # Along the second the first logit rose by 0.6 + 2.4 = 3, too much by 2; the second by 7.2, too much by 5.2.
    expected = [[1 - 2 * 0.6, 7, 3 - 2 * 0.8], [4 - 5.2 * 0.6, 8, 6 - 5.2 * 0.8]]
    np.testing.assert_allclose(correct(jacobian, slopes, directions), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["coordinate", "smooth"])
@pytest.mark.parametrize("antithetic", [False, True])
def test_all_directions_give_the_whole_jacobian(teacher, kind, antithetic):
    model, x = look(teacher, with_directions(SIZE, directions=kind, antithetic=antithetic, sigma=1e-2))
    expected = jacobian_at(teacher, x)
    np.testing.assert_allclose(model.jacobian, expected, atol=1e-3 if antithetic else 2e-2)
    np.testing.assert_allclose(model.logits, teacher(x), atol=1e-6)
    near = x + 1e-3
    np.testing.assert_allclose(model.as_teacher(SPEC)(near), teacher(near), atol=1e-3)


def test_differences_of_a_parabola():
    """dz/dx of x^2 is 2 x; one-sided differences have it at x + sigma / 2."""
    parabola = from_function(lambda x: jnp.square(x.reshape(len(x), -1))[:, :5], SPEC)
    for antithetic, off in ((False, 0.2), (True, 0.0)):
        model, x = look(parabola, with_directions(SIZE, directions="coordinate", antithetic=antithetic, sigma=0.2))
        slopes = np.diagonal(np.asarray(model.jacobian)[:, :, :5], axis1=1, axis2=2)
        np.testing.assert_allclose(slopes, 2 * x.reshape(len(x), -1)[:, :5] + off, atol=1e-4)


def test_looks_at_a_linear_teacher_add_up():
    weights = jax.random.normal(jax.random.key(3), (SIZE, 5))
    linear = from_function(lambda x: x.reshape(len(x), -1) @ weights, SPEC)
    own = with_directions(8, directions="smooth", sigma=1.0)
    first, _ = look(linear, own, seed=0)
    second, _ = look(linear, own, seed=1, jacobian=first.jacobian)
    off = [np.linalg.norm(model.jacobian - weights.T) for model in (first, second)]
    assert off[1] < off[0] < np.linalg.norm(np.tile(weights.T, (6, 1, 1)))
    # The error is orthogonal to all that was measured, so that Pythagoras holds.
    change = np.linalg.norm(second.jacobian - first.jacobian)
    assert off[0] ** 2 == pytest.approx(off[1] ** 2 + change**2, rel=1e-4)


def test_the_mean_over_draws_is_the_gradient(teacher):
    """D / q times the estimate is unbiased where directions are drawn evenly; then cos^2 is q / D in the mean."""
    own, draws = with_directions(4, directions="coordinate", antithetic=True, sigma=1e-2), 400
    truth = jacobian_at(teacher, look(teacher, own)[1])[:, 0]
    estimates = np.stack([look(teacher, own, seed)[0].jacobian[:, 0] for seed in range(draws)]) * SIZE / 4
    error = estimates.std(axis=0) / np.sqrt(draws)
    off = (estimates.mean(axis=0) - truth) / np.maximum(error, 1e-6)
    assert np.abs(off).max() < 5
    assert 0.8 < off.std() < 1.2
    cosine = np.sum(estimates * truth, axis=2) / np.linalg.norm(estimates, axis=2) / np.linalg.norm(truth, axis=1)
    assert np.mean(cosine**2) == pytest.approx(4 / SIZE, rel=0.1)


def test_more_directions_come_nearer(teacher):
    cosines = []
    for count in (2, 8, 16, SIZE):
        model, x = look(teacher, with_directions(count), sets=20)
        mine, truth = (np.asarray(j)[:, 0] for j in (model.jacobian, jacobian_at(teacher, x)))
        cosines.append(np.mean(np.sum(mine * truth, 1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(truth, axis=1)))
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
def test_with_all_directions_it_is_cake(teacher, change, directions):
    common = dataclasses.replace(COMMON, schedule="constant", **change)
    key = jax.random.key(5)
    white, info = synthesis.minibatch(key, teacher, common, 1)
    black = METHOD.next(key, (), Counting(teacher), None, exact(common, directions=directions), 1)
    start, _ = synthesis.starts(key, common, SPEC, 1)
    assert np.abs(white.x - start).max() > 0.1, "the samples must have moved"
    np.testing.assert_allclose(black.samples.x, white.x, atol=2e-3)
    np.testing.assert_allclose(black.samples.logits, white.logits, atol=2e-2)
    for name in ("target", "set_index", "step_size"):
        np.testing.assert_array_equal(getattr(black.samples, name), getattr(white, name))
    np.testing.assert_allclose(black.info, info, rtol=2e-2)


def test_between_looks_it_is_cake_on_a_linear_teacher():
    weights = 0.3 * jax.random.normal(jax.random.key(3), (SIZE, 5))
    linear = from_function(lambda x: x.reshape(len(x), -1) @ weights, SPEC)
    white, _ = synthesis.minibatch(jax.random.key(0), linear, COMMON, 0)
    own = settings(budget=10**6, num_looks=1, num_directions=SIZE, sigma=1.0, trust=9.0)
    black = METHOD.next(jax.random.key(0), (), linear, None, own, 0)
    np.testing.assert_allclose(black.samples.x, white.x, atol=1e-4)
    assert black.queries.forward == 15 * (1 + SIZE + 1)


def test_what_a_look_found_is_there_for_the_next(teacher, monkeypatch):
    given, found, ask = [], [], zeroth_order.look

    def note(key, teacher, x, jacobian, settings):
        model = ask(key, teacher, x, jacobian, settings)
        given.append(jacobian)
        found.append(model.jacobian)
        return model

    monkeypatch.setattr(zeroth_order, "look", note)
    METHOD.next(jax.random.key(0), (), teacher, None, settings(budget=10**6, num_looks=3, num_directions=4), 0)
    np.testing.assert_array_equal(given[0], 0)
    np.testing.assert_array_equal(given[1:], found[:-1])
    ranks = [int(np.linalg.matrix_rank(jacobian[:3].reshape(-1, SIZE), tol=1e-3)) for jacobian in found]
    assert ranks[0] == 4, "the samples of a set share their directions"
    assert ranks[0] < ranks[1] < ranks[2], "and each look has others"


def test_no_sample_goes_beyond_the_trust(teacher):
    common = dataclasses.replace(COMMON, step_size=5.0, num_steps=20)
    own = settings(common, budget=10**6, num_looks=2, trust=0.25)
    start, _ = synthesis.starts(jax.random.key(0), common, SPEC, 0)
    x = METHOD.next(jax.random.key(0), (), teacher, None, own, 0).samples.x
    moved = np.sqrt(np.square(x - start).mean(axis=(1, 2, 3)))
    assert moved.max() <= 2 * 0.25 + 1e-5
    assert moved.max() > 0.25 + 1e-5, "the second look begins anew"


@pytest.mark.parametrize("own", [{}, {"antithetic": True}, {"num_looks": 3}, {"num_directions": 5}])
@pytest.mark.parametrize("per_sample", [13, 40])
def test_the_budget_is_kept_and_told_to_the_last_query(teacher, own, per_sample):
    budget = 45 * per_sample + 44
    chosen = settings(budget=budget, **own)
    counting = Counting(teacher)
    asked = sum(METHOD.next(jax.random.key(0), (), counting, None, chosen, batch).queries.forward for batch in range(3))
    assert asked == counting.queries <= budget
    assert asked == 45 * chosen.queries_per_sample
    assert asked > 0.6 * budget


def test_what_more_queries_could_not_mend_is_not_spent():
    chosen = settings(budget=10**9)
    assert (chosen.num_looks, chosen.num_directions) == (COMMON.num_steps, SIZE)


def test_a_larger_budget_gives_more_looks_and_directions():
    chosen = [settings(budget=45 * per_sample) for per_sample in (9, 30, 120)]
    assert [(s.num_looks, s.num_directions) for s in chosen] == [(1, 7), (2, 13), (4, 28)]


def test_a_black_box_with_just_the_budget_is_enough(teacher):
    chosen = settings(dataclasses.replace(COMMON, num_batches=1), budget=15 * 30)
    box = BlackBox(teacher, SPEC, QuerySettings("logits", 15 * chosen.queries_per_sample))
    samples, _, queries = zeroth_order.minibatch(jax.random.key(0), box, chosen, 0)
    assert box.queries == queries
    white = zeroth_order.minibatch(jax.random.key(0), teacher, chosen, 0).samples
    np.testing.assert_allclose(samples.x, white.x, atol=1e-4)
    np.testing.assert_allclose(samples.logits, white.logits, atol=1e-3)


def test_of_scores_it_descends_the_logarithm(teacher):
    box = BlackBox(teacher, SPEC, QuerySettings("scores", 10**6))
    logarithm = from_function(lambda x: jax.nn.log_softmax(teacher(x)), SPEC)
    white, _ = synthesis.minibatch(jax.random.key(0), logarithm, COMMON, 0)
    black = METHOD.next(jax.random.key(0), (), box, None, exact(), 0)
    np.testing.assert_allclose(black.samples.x, white.x, atol=2e-3)


def test_rows_that_are_too_many_at_once_are_asked_in_parts(teacher, monkeypatch):
    chosen = settings(budget=10**4)
    whole = METHOD.next(jax.random.key(0), (), Counting(teacher), None, chosen, 0)
    monkeypatch.setattr(zeroth_order, "_ROWS_BYTES", 15 * 4 * SIZE * 5)
    counting = Counting(teacher)
    parts = METHOD.next(jax.random.key(0), (), counting, None, chosen, 0)
    assert max(counting.calls) == 15 * 5
    assert counting.queries == parts.queries.forward == whole.queries.forward
    np.testing.assert_allclose(parts.samples.x, whole.samples.x, atol=1e-5)


@pytest.mark.parametrize("search", ["gradient", "boundary"])
def test_a_round_depends_on_its_key_and_number_alone(teacher, search):
    chosen = settings(budget=10**4, search=search)
    first, again, other, later = (
        METHOD.next(jax.random.key(seed), (), teacher, None, chosen, batch).samples.x
        for seed, batch in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, later)


def test_each_mini_batch_draws_its_own_pairs(teacher, monkeypatch):
    keys, draw = [], boundary.draw_pairs

    def note(key, labels):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return draw(key, labels)

    monkeypatch.setattr(boundary, "draw_pairs", note)
    chosen = settings(search="boundary")
    for seed, batch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        METHOD.next(jax.random.key(seed), (), teacher, None, chosen, batch)
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_pairs_have_two_labels_and_rare_ones_as_often():
    labels = np.repeat([0, 1, 2], [400, 80, 20])
    first, second = boundary.draw_pairs(jax.random.key(0), labels)
    assert len(first) == len(second) == 250
    assert (labels[first] != labels[second]).all()
    counts = np.bincount(np.concatenate([labels[first], labels[second]]))
    np.testing.assert_allclose(counts / 500, 1 / 3, atol=4 * np.sqrt(2 / 9 / 500))


@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_bisection_halves_the_way_to_a_known_boundary(steps):
    """The boundary is x_0 = 0.3."""

    def teacher(x):
        return np.stack([np.zeros(len(x)), x[:, 0] - 0.3], axis=1).astype(np.float32)

    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(2, 50, 3)).astype(np.float32)
    x[0, :, 0], x[1, :, 0] = -1 - x[0, :, 0] ** 2, 1 + x[1, :, 0] ** 2
    ends, logits = boundary.bisect(teacher, x, np.stack([teacher(side) for side in x]), steps)
    np.testing.assert_array_equal(logits.argmax(-1), [[0] * 50, [1] * 50])
    np.testing.assert_allclose(logits[..., 1], ends[..., 0] - 0.3, atol=1e-6)
    assert (ends[0, :, 0] <= 0.3).all()
    assert (ends[1, :, 0] > 0.3).all()
    np.testing.assert_allclose(ends[1] - ends[0], (x[1] - x[0]) / 2**steps, atol=1e-6)
    on_the_line = (ends[0] - x[0]) / (x[1] - x[0])
    np.testing.assert_allclose(on_the_line, np.broadcast_to(on_the_line[:, :1], (50, 3)), atol=1e-4)


def test_a_third_class_on_the_way_becomes_an_end():
    """Classes change at 0 and at 0.7; the middle of -1 and 1.5 is of the second."""

    def teacher(x):
        return np.stack([-x[:, 0], 0.2 - np.abs(x[:, 0] - 0.3), x[:, 0] - 0.75], axis=1)

    x = np.array([[[-1.0]], [[1.5]]], np.float32)
    ends, logits = boundary.bisect(teacher, x, np.stack([teacher(side) for side in x]), 1)
    np.testing.assert_allclose(ends.ravel(), [-1.0, 0.25])
    assert logits.argmax(-1).ravel().tolist() == [0, 1]


@pytest.mark.parametrize(("batch_size", "pairs"), [(14, 7), (15, 8)])
def test_labels_alone_lead_to_pairs(teacher, batch_size, pairs):
    common = dataclasses.replace(COMMON, batch_size=batch_size, num_groups=1)
    chosen = settings(common, budget=10**5)
    labels_of = from_function(lambda x: 110 * jax.nn.one_hot(teacher(x).argmax(-1), 5), SPEC)
    counting = Counting(labels_of, "labels")
    result = METHOD.next(jax.random.key(0), (), counting, None, chosen, 2)
    assert result.queries.forward == counting.queries == batch_size + pairs * 3
    samples = result.samples
    assert samples.num_samples == batch_size
    np.testing.assert_array_equal(samples.set_index, 2 * pairs + np.repeat(np.arange(pairs), 2)[:batch_size])
    np.testing.assert_array_equal(samples.target, teacher(jnp.asarray(samples.x)).argmax(-1))
    assert (samples.target[: pairs * 2 - 2 : 2] != samples.target[1 : pairs * 2 - 2 : 2]).all()
    assert result.info.distance == pytest.approx(result.info.distance_start / 8, rel=1e-4)


@pytest.mark.parametrize("per_sample", [2, 3, 50])
def test_bisections_keep_the_budget(teacher, per_sample):
    chosen = settings(budget=45 * per_sample, search="boundary", bisections=6)
    queries = [METHOD.next(jax.random.key(0), (), teacher, None, chosen, m).queries.forward for m in range(3)]
    assert chosen.bisections == {2: 1, 3: 3, 50: 6}[per_sample]
    assert sum(queries) <= 45 * per_sample


def test_one_label_everywhere_is_refused():
    constant = from_function(lambda x: jnp.tile(jnp.arange(5.0), (len(x), 1)), SPEC)
    with pytest.raises(CakeError, match=r"synthesis\.start.*label 4"):
        METHOD.next(jax.random.key(0), (), constant, None, settings(search="boundary"), 0)


def test_scores_are_refused_of_a_teacher_of_labels(teacher):
    with pytest.raises(CakeError, match=r"methods\.zeroth_order\.search.*'boundary'"):
        METHOD.next(jax.random.key(0), (), Counting(teacher, "labels"), None, settings(search="gradient"), 0)


@pytest.mark.parametrize(
    ("own", "field"),
    [
        ({"budget": 45 * 3 - 1}, "budget"),
        ({"budget": 45 * 4 - 1, "antithetic": True}, "budget"),
        ({"budget": 45 * 7, "num_looks": 4}, "budget"),
        ({"budget": 45 * 7, "num_directions": 6}, "budget"),
        ({"budget": 45 * 2 - 1, "search": "boundary"}, "budget"),
        ({"search": "labels"}, "search"),
        ({"directions": "gaussian"}, "directions"),
        ({"sigma": 0.0}, "sigma"),
        ({"trust": -1.0}, "trust"),
        ({"num_looks": -1}, "num_looks"),
        ({"num_directions": SIZE + 1}, "num_directions"),
    ],
)
def test_what_cannot_work_is_refused_by_field(own, field):
    with pytest.raises(CakeError, match=rf"methods\.zeroth_order\.{field}"):
        settings(**own)


def test_smooth_directions_of_vectors_are_refused_and_not_chosen():
    spec = DataSpec((7,), 5)
    common = dataclasses.replace(COMMON, weights=Weights())
    assert settings(common, spec).directions == "coordinate"
    assert settings().directions == "smooth"
    with pytest.raises(CakeError, match=r"methods\.zeroth_order\.directions"):
        settings(common, spec, directions="smooth")


def test_settings_are_one_compiled_program():
    one, same = settings(), settings()
    assert isinstance(one, SynthesisSettings)
    assert hash(one) == hash(same)
    assert combined(ZerothOrderSettings, COMMON, {"sigma": 0.5}).sigma == 0.5
