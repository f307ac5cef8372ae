"""Membership inference: how well an attacker tells whether an example was in a model's training data."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import logsumexp
from sklearn import metrics

from cake_jax.types import CakeError


class Leakage(NamedTuple):
    """What an attacker learns about membership.

    Attributes:
      auc: The probability that a random member has a higher score than a random other example. 0.5 is a blind guess.
      found: Share of the members that the attacker finds while he calls 1 % of the others members. 0.01 is a blind
        guess.
    """

    auc: float
    found: float


def confidence(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The log-odds of the true class, `[N]`, of logits `[N, K]` and classes `[N]`.

    They are nearly normally distributed over trainings (Carlini et al. 2022, section V.B).
    """
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    return logits[rows, y] - logsumexp(others, axis=1)


def likelihood_ratios(scores: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """The likelihood-ratio attack with shadow models (Carlini et al. 2022, algorithm 1).

    Each of S models is attacked with the help of the others. For each example, their scores give two normal
    distributions: one if the example was trained on, and one if it was not. The variances are those over all examples,
    as the paper proposes for few shadow models.

    Args:
      scores: Scores of each example by each model, `[S, N]`, such as those of `confidence`.
      is_member: Whether the example was in the model's training data, `[S, N]` bool.

    Returns:
      Logarithms of the likelihood ratios, `[S, N]`: high for likely members.

    Raises:
      CakeError: An example was in the training data of fewer than three models, or fewer than three lacked it.
    """
    counts = is_member.sum(axis=0)
    # As many models with an example as without it: their numbers would tell in which group the target was counted.
    size = min(counts.min(), len(scores) - counts.max()) - 1
    if size < 2:
        raise CakeError("membership: each example needs three models with it and three without it, or more")
    ratios = np.zeros(scores.shape)
    for target in range(len(scores)):
        others = np.delete(np.arange(len(scores)), target)
        densities = []
        for group in (is_member[others], ~is_member[others]):
            own = np.where(group & (np.cumsum(group, axis=0) <= size), scores[others], np.nan)
            mean = np.nanmean(own, axis=0)
            densities.append(stats.norm.logpdf(scores[target], mean, np.sqrt(np.nanmean((own - mean) ** 2))))
        ratios[target] = densities[0] - densities[1]
    return ratios


def leakage(scores: np.ndarray, is_member: np.ndarray) -> Leakage:
    """How well scores `[N]` tell members from others, `[N]` bool."""
    wrong, right, _ = metrics.roc_curve(is_member, scores)
    return Leakage(float(metrics.roc_auc_score(is_member, scores)), float(np.interp(0.01, wrong, right)))
