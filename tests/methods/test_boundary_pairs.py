"""The boundary search: pairs of different labels, and their bisection."""

import jax
import numpy as np
import pytest
from cake_errors import message_of
from counting import Counting
from small_zeroth_order import make_round, prepared
from smooth_teacher import logits_of

from cake_jax.methods.zeroth_order import boundary_pairs, queries
from cake_jax.methods.zeroth_order.boundary_pairs import bisect, draw_pairs


def labels_of(x):
    """The argmax of the smooth teacher, as logits."""
    return 110 * np.eye(5)[logits_of(x).argmax(axis=1)]


def test_each_mini_batch_draws_its_own_pairs(monkeypatch):
    keys, draw = [], boundary_pairs.draw_pairs

    def recorded(key, labels):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return draw(key, labels)

    monkeypatch.setattr(boundary_pairs, "draw_pairs", recorded)
    for seed, batch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        make_round(Counting(), prepared(search="boundary"), batch, jax.random.key(seed))
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_pairs_have_different_labels_which_are_equally_frequent():
    labels = np.repeat([0, 1, 2], [400, 80, 20])
    first, second = draw_pairs(jax.random.key(0), labels)
    assert len(first) == len(second) == 250
    assert (labels[first] != labels[second]).all()
    counts = np.bincount(np.concatenate([labels[first], labels[second]]))
    np.testing.assert_allclose(counts / 500, 1 / 3, atol=4 * np.sqrt(2 / 9 / 500))


@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_bisection_halves_the_distance_across_a_known_boundary(steps):
    """The boundary is x_0 = 0.3."""

    def teacher(x):
        return np.stack([np.zeros(len(x)), x[:, 0] - 0.3], axis=1).astype(np.float32)

    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(2, 50, 3)).astype(np.float32)
    x[0, :, 0], x[1, :, 0] = -1 - x[0, :, 0] ** 2, 1 + x[1, :, 0] ** 2
    ends, logits = bisect(teacher, x, np.stack([teacher(side) for side in x]), steps)
    np.testing.assert_array_equal(logits.argmax(-1), [[0] * 50, [1] * 50])
    np.testing.assert_allclose(logits[..., 1], ends[..., 0] - 0.3, atol=1e-6)
    assert (ends[0, :, 0] <= 0.3).all()
    assert (ends[1, :, 0] > 0.3).all()
    np.testing.assert_allclose(ends[1] - ends[0], (x[1] - x[0]) / 2**steps, atol=1e-6)
    on_the_line = (ends[0] - x[0]) / (x[1] - x[0])
    np.testing.assert_allclose(on_the_line, np.broadcast_to(on_the_line[:, :1], (50, 3)), atol=1e-4)


def test_a_third_class_between_the_samples_replaces_the_second():
    """The class changes at 0 and at 0.7. The middle of -1 and 1.5 has the class between."""

    def teacher(x):
        return np.stack([-x[:, 0], 0.2 - np.abs(x[:, 0] - 0.3), x[:, 0] - 0.75], axis=1)

    x = np.array([[[-1.0]], [[1.5]]], np.float32)
    ends, logits = bisect(teacher, x, np.stack([teacher(side) for side in x]), 1)
    np.testing.assert_allclose(ends.ravel(), [-1.0, 0.25])
    assert logits.argmax(-1).ravel().tolist() == [0, 1]


@pytest.mark.parametrize(("batch_size", "pairs"), [(14, 7), (15, 8)])
def test_labels_alone_lead_to_pairs(batch_size, pairs):
    """Three bisections. If the number of samples is odd, the last pair lacks its second sample."""
    settings, teacher = prepared(batch_size=batch_size, num_groups=1), Counting(labels_of, access="labels")
    result = make_round(teacher, settings, 2)
    assert queries(settings, "labels", 2).forward == teacher.queries == batch_size + pairs * 3
    samples = result.samples
    assert samples.num_samples == batch_size
    np.testing.assert_array_equal(samples.set_index, 2 * pairs + np.repeat(np.arange(pairs), 2)[:batch_size])
    np.testing.assert_array_equal(samples.target, logits_of(samples.x).argmax(-1))
    whole = samples.target[: batch_size // 2 * 2].reshape(-1, 2)
    assert (whole[:, 0] != whole[:, 1]).all()
    assert result.info.distance == pytest.approx(result.info.distance_start / 8, rel=1e-4)
    assert result.info.labels == len(set(samples.target.tolist()))


def test_a_single_label_is_refused():
    constant = Counting(lambda x: np.tile(np.arange(5.0), (len(x), 1)))
    message = message_of(make_round, constant, prepared(search="boundary"))
    assert message.startswith("synthesis.start: ")
    assert "mini-batch 0" in message
    assert "label 4" in message
