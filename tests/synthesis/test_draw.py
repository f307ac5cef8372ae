"""The starts and target classes of a mini-batch: each set draws from its own key."""

import jax
import numpy as np
import pytest
from small_synthesis import SETTINGS
from smooth_teacher import SPEC

from cake_jax import random_keys
from cake_jax.synthesis import draw_batch
from cake_jax.synthesis.draw_starts import batch_sets, draw_jit
from cake_jax.synthesis.targets import distinct

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def mini_batches():
    return [draw_batch(KEY, SETTINGS, SPEC, batch) for batch in range(3)]


def test_sets_are_numbered_over_all_mini_batches():
    np.testing.assert_array_equal(batch_sets(SETTINGS, 0), np.arange(5))
    np.testing.assert_array_equal(batch_sets(SETTINGS, 2), np.arange(10, 15))


def test_a_set_draws_from_its_own_key(mini_batches):
    for batch, number in ((0, 0), (1, 3)):
        start_key, target_key, _ = jax.random.split(random_keys.set_key(KEY, batch * 5 + number), 3)
        x, target = mini_batches[batch]
        rows = slice(3 * number, 3 * number + 3)
        np.testing.assert_array_equal(x[rows], jax.random.normal(start_key, (3, *SPEC.shape)))
        np.testing.assert_array_equal(target[rows], jax.random.permutation(target_key, 5)[:3])


def test_noise_keys_are_the_third_of_each_set():
    _, _, noise_keys = draw_jit(KEY, np.array([4, 9]), SETTINGS, SPEC)
    expected = [jax.random.split(jax.random.fold_in(KEY, number), 3)[2] for number in (4, 9)]
    for ours, theirs in zip(noise_keys, expected, strict=True):
        np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_target_classes_of_a_set_differ_and_all_occur(mini_batches):
    target = np.concatenate([target for _, target in mini_batches]).reshape(15, 3)
    assert all(len(set(one_set)) == 3 for one_set in target.tolist())
    assert set(target.ravel()) == set(range(5))


def test_distinct_targets_are_uniform():
    """Each class takes each place in a fifth of 2,000 draws, within four standard errors."""
    draws = jax.vmap(lambda key: distinct(key, 5, 3))(jax.random.split(KEY, 2_000))
    assert draws.dtype == np.int32
    shares = [(np.asarray(draws) == k).mean(axis=0) for k in range(5)]
    np.testing.assert_allclose(shares, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 2_000))
