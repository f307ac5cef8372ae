"""Intervals for an agreement from an estimate."""

import numpy as np
import pytest

from cake_jax.evaluation.conformal import interval


def odds(value):
    """The share with these odds."""
    return value / (1 + value)


# The odds of the agreement are 1, 2, ..., 19 times those of the estimate.
KNOWN = [(odds(3.0), odds(3.0 * factor)) for factor in range(1, 20)]


@pytest.mark.parametrize(
    ("coverage", "low", "high"),
    [(0.9, 1, 19), (0.8, 2, 18), (0.5, 5, 15)],  # of 19 runs, place 20 * (1 - coverage) / 2 from both ends
)
def test_the_interval_has_the_factors_of_the_known_runs(coverage, low, high):
    found = interval(odds(0.5), KNOWN, coverage)
    assert found == pytest.approx((odds(0.5 * low), odds(0.5 * high)))


def test_the_order_of_the_known_runs_does_not_matter():
    assert interval(0.7, KNOWN[::-1]) == interval(0.7, KNOWN)


def test_too_few_runs_say_nothing():
    assert interval(0.7, KNOWN[:18]) is None
    assert interval(0.7, []) is None


def test_an_agreement_of_all_or_no_inputs_stays_possible():
    """Agreements above 99.9 % count as 99.9 %, so they are all possible if one of them is. The same holds at 0."""
    assert interval(0.99, [(0.5, 1.0)] * 19) == pytest.approx((0.999, 1), abs=1e-12)
    assert interval(0.01, [(0.5, 0.0)] * 19) == pytest.approx((0, 0.001), abs=1e-12)
    assert interval(0.5, [(0.5, 0.0)] * 10 + [(0.5, 1.0)] * 10) == (0, 1)


def test_intervals_hold_the_agreement_as_often_as_wanted():
    """Runs whose log-odds differ from the estimate's by a skewed noise."""
    rng = np.random.default_rng(0)
    estimates = rng.uniform(0.2, 0.8, (2000, 40))
    agreements = odds(estimates / (1 - estimates) * np.exp(rng.exponential(0.5, estimates.shape)))
    held = []
    for estimated, agreed in zip(estimates, agreements, strict=True):
        low, high = interval(estimated[0], list(zip(estimated[1:], agreed[1:], strict=True)), 0.8)
        held.append(low <= agreed[0] <= high)
    assert np.mean(held) == pytest.approx(0.8, abs=0.03)
