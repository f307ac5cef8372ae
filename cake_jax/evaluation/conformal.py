"""Intervals for the agreement of student and teacher on real data, from an estimate that needs none."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

# Agreements of exactly 0 or 1 have infinite log-odds.
_LEAST = 1e-3
_ROUNDING = 1e-9


def interval(
    estimate: float, known: Sequence[tuple[float, float]], coverage: float = 0.9
) -> tuple[float, float] | None:
    """An interval that holds the agreement with a probability of at least `coverage`, if all runs are exchangeable.

    The differences of the log-odds of agreement and estimate in the known runs are taken over to the new run. Runs of
    teachers that differ in their seeds are nearly exchangeable, runs on other data are not.

    Args:
      estimate: The estimate for the new run, from 0 to 1.
      known: Estimate and agreement of each run whose agreement is known, from 0 to 1.
      coverage: The wanted probability.

    Returns:
      The lowest and the highest agreement, from 0 to 1. None if there are too few runs, for 90 % fewer than 19.

    Source: split conformal prediction (Vovk, Gammerman, Shafer 2005; Lei et al. 2018, arXiv 1604.04173, section 2.2).
    """
    differences = np.sort([_log_odds(agreement) - _log_odds(estimated) for estimated, agreement in known])
    place = int((len(differences) + 1) * (1 - coverage) / 2 + _ROUNDING)
    if not place:
        return None
    low, high = expit(_log_odds(estimate) + differences[[place - 1, -place]])
    # The ends of the log-odds stand for all agreements beyond them.
    low, high = min(low, 1 - _LEAST), max(high, _LEAST)
    return (0.0 if low <= _LEAST + _ROUNDING else float(low)), (1.0 if high >= 1 - _LEAST - _ROUNDING else float(high))


def _log_odds(share: float) -> float:
    return float(logit(np.clip(share, _LEAST, 1 - _LEAST)))
