"""Membership inference on scores whose distributions are known."""

import numpy as np
import pytest
from scipy import stats

from cake_jax.evaluation.membership import confidence, leakage, likelihood_ratios
from cake_jax.types import CakeError


def members(models, examples, rng):
    """Each example is in the training data of half of the models."""
    return np.stack([rng.permutation(np.arange(models) < models // 2) for _ in range(examples)], axis=1)


def test_confidence_is_the_log_odds_of_the_true_class():
    shares = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    logits = np.log(shares) + 3.0
    np.testing.assert_allclose(confidence(logits, np.array([0, 1])), [np.log(0.7 / 0.3), np.log(0.25 / 0.75)])


def test_scores_that_do_not_depend_on_membership_tell_nothing():
    rng = np.random.default_rng(0)
    is_member = members(16, 2000, rng)
    ratios = likelihood_ratios(rng.normal(size=is_member.shape), is_member)
    found = [leakage(*pair) for pair in zip(ratios, is_member, strict=True)]
    assert abs(np.mean([one.auc for one in found]) - 0.5) < 0.01
    assert abs(np.mean([one.found for one in found]) - 0.01) < 0.005


def test_the_attack_calibrates_each_example():
    """Examples differ by far more than membership does. Two normal distributions a standard deviation apart remain."""
    rng = np.random.default_rng(0)
    is_member = members(64, 2000, rng)
    scores = rng.normal(size=is_member.shape) + is_member + 100 * rng.normal(size=is_member.shape[1])
    ratios = likelihood_ratios(scores, is_member)
    found = [leakage(*pair) for pair in zip(ratios, is_member, strict=True)]
    assert abs(np.mean([one.auc for one in found]) - stats.norm.cdf(1 / np.sqrt(2))) < 0.02
    assert abs(np.mean([one.found for one in found]) - stats.norm.sf(stats.norm.isf(0.01) - 1)) < 0.02
    assert abs(leakage(scores[0], is_member[0]).auc - 0.5) < 0.05


def test_leakage_of_four_examples():
    assert leakage(np.array([4.0, 2.0, 3.0, 1.0]), np.array([True, True, False, False])) == (0.75, 0.5)


def test_too_few_shadow_models_are_refused():
    with pytest.raises(CakeError, match="three models with it"):
        likelihood_ratios(np.zeros((3, 1)), np.array([[True], [False], [False]]))
