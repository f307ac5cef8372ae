"""The starts and target classes of a mini-batch: each set draws from its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_synthesis import SETTINGS
from smooth_teacher import SPEC

from cake_jax import random_keys
from cake_jax.synthesis import SynthesisSettings, draw_batch
from cake_jax.synthesis.draw_starts import batch_sets, draw, draw_candidates, draw_jit
from cake_jax.synthesis.targets import distinct
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec

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


# A teacher of numbers. Its classes have the parts x < -1, -1 <= x <= 2, and x > 2 of a normal start: 16, 82 and 2 %.
NUMBERS = DataSpec((1,), 3)
RARE = from_function(lambda x: jnp.concatenate([-1 - x, jnp.zeros_like(x), x - 2], axis=1), NUMBERS)


def many_sets(candidates):
    """The starts of 200 sets of 3 samples, `[200, 3]`, their target classes, and the keys of the starts."""
    settings = SynthesisSettings(batch_size=600, num_groups=3, candidates=candidates)
    x, target, _ = draw_candidates(KEY, np.arange(200), settings, RARE)
    keys = [jax.random.split(random_keys.set_key(KEY, number), 3)[0] for number in range(200)]
    return np.asarray(x)[..., 0], np.asarray(target), keys


def test_a_single_candidate_is_the_start():
    settings = SynthesisSettings(batch_size=600, num_groups=3)
    for ours, plain in zip(
        draw_candidates(KEY, np.arange(5), settings, RARE), draw(KEY, np.arange(5), settings, NUMBERS), strict=True
    ):
        np.testing.assert_array_equal(*map(jax.random.key_data, (ours, plain)) if ours.ndim == 1 else (ours, plain))


def test_a_sample_starts_at_the_first_candidate_of_its_class_or_else_at_the_most_probable():
    x, target, keys = many_sets(candidates=4)
    fallbacks = 0
    for chosen, classes, key in zip(x, target, keys, strict=True):
        draws = [np.asarray(jax.random.normal(key, (3, 1)))[:, 0]]
        draws += [np.asarray(jax.random.normal(jax.random.fold_in(key, n), (3, 1)))[:, 0] for n in range(1, 4)]
        for place, label in enumerate(classes):
            candidates = np.array([draw[place] for draw in draws], np.float32)
            hits = np.where(candidates < -1, 0, np.where(candidates <= 2, 1, 2)) == label
            logits = np.stack([-1 - candidates, np.zeros(4, np.float32), candidates - 2], axis=1)
            best = (np.exp(logits)[:, label] / np.exp(logits).sum(axis=1)).argmax()
            fallbacks += not hits.any()
            assert chosen[place] == pytest.approx(candidates[hits.argmax() if hits.any() else best], rel=1e-6)
    assert 100 < fallbacks < 500


def test_candidates_balance_the_classes():
    """Of 100 candidates, about 90 % of the samples find one of a class with a share of 2 %."""
    x, _, _ = many_sets(candidates=100)
    shares = [np.mean(x < -1), np.mean((x >= -1) & (x <= 2)), np.mean(x > 2)]
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 1 / 3], atol=0.06)
    alone, _, _ = many_sets(candidates=1)
    assert np.mean(alone > 2) < 0.05
