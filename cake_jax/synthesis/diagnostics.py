"""Diagnostics of a mini-batch of samples."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import losses
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.types import SampleBatch


class SynthesisInfo(NamedTuple):
    """Diagnostics of a mini-batch, scalars on the host.

    Attributes:
      step_size: Step size eta(m).
      cls: L_cls of the final samples, before it is multiplied by its weight.
      contr: L_contr of the final samples, before it is multiplied by its weight.
      prior: Sum of the data priors, each multiplied by its weight.
      entropy: L_ent of the final samples, before it is multiplied by its weight.
      target_accuracy: Share of the samples that the teacher assigns to their target class.
      class_balance: Entropy of the histogram of the teacher's predicted classes, divided by log K, or by log N if the
        mini-batch has N < K samples. 1 if all classes are equally frequent, 0 if there is only one.
      confidence: Mean of the teacher's highest probability.
      logit_gap_start: Logit gap of the start samples, median over the sets.
      logit_gap: Logit gap of the final samples, median over the sets.
    """

    step_size: float
    cls: float
    contr: float
    prior: float
    entropy: float
    target_accuracy: float
    class_balance: float
    confidence: float
    logit_gap_start: float
    logit_gap: float


def logit_gap(logits: Array) -> Array:
    """The root mean squared distance between the logits of two samples of a set: `[..., G, K]` to `[...]`."""
    groups, classes = logits.shape[-2:]
    pairs = max(groups * (groups - 1), 1)
    return jnp.sqrt(2.0 * classes * losses.contrastive_mse(logits) / pairs)


def diagnose(samples: SampleBatch, settings: SynthesisSettings, gap_start: np.ndarray | None = None) -> SynthesisInfo:
    """Diagnostics of a mini-batch, computed from its stored logits.

    Args:
      samples: The mini-batch, set by set.
      settings: The settings.
      gap_start: Logit gaps of the sets of start samples, `[S]`. None if the samples took no step.
    """
    values = _diagnostics(samples.x, samples.logits, samples.target, gap_start, settings)
    return SynthesisInfo(float(samples.step_size[0]), **{name: float(value) for name, value in values.items()})


@functools.partial(jax.jit, static_argnames="settings")
def _diagnostics(
    x: Array, logits: Array, target: Array, gap_start: Array | None, settings: SynthesisSettings
) -> dict[str, Array | float]:
    sets = logits.reshape(settings.num_sets, settings.num_groups, -1)
    gap = logit_gap(sets)
    return {
        "cls": losses.classification(sets, target.reshape(sets.shape[:2])).mean(),
        "contr": losses.contrastive_mse(sets).mean(),
        "prior": sum((weight * prior.value(x).mean() for prior, weight in settings.weights.data_priors), start=0.0),
        "entropy": losses.negative_entropy(jax.nn.softmax(logits).mean(axis=0)),
        "target_accuracy": (logits.argmax(-1) == target).mean(),
        "class_balance": _balance(jnp.bincount(logits.argmax(-1), length=logits.shape[-1])),
        "confidence": jax.nn.softmax(logits).max(axis=-1).mean(),
        "logit_gap_start": jnp.median(gap if gap_start is None else gap_start),
        "logit_gap": jnp.median(gap),
    }


def _balance(counts: Array) -> Array:
    """The entropy of a histogram `[K]` of N samples, as a share of its maximum: log K, or log N if N is below K."""
    count = counts.sum()
    return jax.scipy.special.entr(counts / count).sum() / jnp.log(jnp.clip(count, 2, len(counts)))
