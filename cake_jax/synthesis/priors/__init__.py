"""Data priors by name. Each is one file, one line of `PRIORS`, and a weight `config.synthesis.weights.<name>`."""

from cake_jax.synthesis.priors.mean_square import MEAN_SQUARE
from cake_jax.synthesis.priors.prior import Prior
from cake_jax.synthesis.priors.total_variation import TOTAL_VARIATION

PRIORS: dict[str, Prior] = {"tv": TOTAL_VARIATION, "l2": MEAN_SQUARE}

__all__ = ["PRIORS", "Prior"]
