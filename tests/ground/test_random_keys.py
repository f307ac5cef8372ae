"""Random keys: how each is derived, and that the keys of one run, training or synthesis differ."""

import jax
import numpy as np
import pytest

from cake_jax import random_keys

KEY = jax.random.key(7)
# Numbers of sets at the borders of the range that is free for them.
SETS = (0, 1, 2, 1000, 2**31 - 1, 2**31, 2**32 - 4)


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def assert_equal(key, expected):
    assert data(key) == data(expected)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_legacy_key_is_the_typed_key_of_its_kind(kind):
    with jax.default_prng_impl(kind):
        legacy = jax.random.PRNGKey(7)
    key = random_keys.as_key(legacy)
    assert_equal(key, jax.random.key(7, impl=kind))
    np.testing.assert_array_equal(jax.random.normal(key, (3,)), jax.random.normal(jax.random.key(7, impl=kind), (3,)))


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_run_keys_are_a_split_of_the_seed(seed):
    split = jax.random.split(jax.random.key(seed), 3)
    for key, expected in zip(random_keys.run_keys(seed), split, strict=True):
        assert_equal(key, expected)


def test_run_keys_have_one_field_for_each_stage():
    teacher, synthesis, student = jax.random.split(jax.random.key(5), 3)
    run = random_keys.run_keys(5)
    assert_equal(run.teacher, teacher)
    assert_equal(run.synthesis, synthesis)
    assert_equal(run.student, student)


def test_training_keys_are_a_split_and_a_fold():
    split, order = jax.random.split(KEY)
    training = random_keys.training_keys(KEY)
    assert_equal(training.split, split)
    assert_equal(training.order, order)
    assert_equal(training.batches, jax.random.fold_in(KEY, 2))


def test_the_key_of_dropout_is_that_of_no_example():
    assert data(random_keys.dropout(KEY)) not in {data(jax.random.fold_in(KEY, place)) for place in range(1000)}


@pytest.mark.parametrize("number", SETS)
def test_set_key_folds_in_the_number(number):
    expected = jax.random.fold_in(KEY, np.uint32(number))
    assert_equal(random_keys.set_key(KEY, number), expected)
    assert_equal(jax.jit(random_keys.set_key)(KEY, np.uint32(number)), expected)


def test_reserved_keys_fold_in_the_three_highest_numbers():
    assert_equal(random_keys.method_state(KEY), jax.random.fold_in(KEY, np.uint32(2**32 - 1)))
    assert_equal(random_keys.guide_student(KEY), jax.random.fold_in(KEY, np.uint32(2**32 - 2)))
    for batch in (0, 5):
        expected = jax.random.fold_in(jax.random.fold_in(KEY, np.uint32(2**32 - 3)), batch)
        assert_equal(random_keys.pairs(KEY, batch), expected)


def test_run_keys_differ_for_all_stages_and_seeds():
    drawn = [data(key) for seed in range(3) for key in (jax.random.key(seed), *random_keys.run_keys(seed))]
    assert len(set(drawn)) == 3 * 4


def test_training_keys_differ():
    assert len({data(key) for key in (KEY, *random_keys.training_keys(KEY))}) == 4


def test_synthesis_keys_differ():
    """No reserved number is that of a set below 2^32 - 3."""
    reserved = [
        random_keys.method_state(KEY),
        random_keys.guide_student(KEY),
        *(random_keys.pairs(KEY, batch) for batch in range(3)),
    ]
    sets = [random_keys.set_key(KEY, number) for number in SETS]
    drawn = [data(key) for key in (KEY, jax.random.fold_in(KEY, np.uint32(2**32 - 3)), *reserved, *sets)]
    assert len(set(drawn)) == len(drawn)
