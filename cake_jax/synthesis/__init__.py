"""Synthesis of samples from a white-box teacher: settings, starts, data priors, objective, step and mini-batch."""

from cake_jax.synthesis.diagnostics import SynthesisInfo, diagnose
from cake_jax.synthesis.draw_starts import draw_batch
from cake_jax.synthesis.minibatch import labelled, minibatch
from cake_jax.synthesis.settings import SynthesisSettings, Weights, checked

__all__ = [
    "SynthesisInfo",
    "SynthesisSettings",
    "Weights",
    "checked",
    "diagnose",
    "draw_batch",
    "labelled",
    "minibatch",
]
