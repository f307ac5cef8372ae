"""Data priors by name. Each is one file, one line of `PRIORS`, and a weight `config.synthesis.weights.<name>`."""

from cake_jax.synthesis.priors.prior import Prior
from cake_jax.synthesis.priors.total_variation import TOTAL_VARIATION

PRIORS: dict[str, Prior] = {"tv": TOTAL_VARIATION}

__all__ = ["PRIORS", "Prior"]
