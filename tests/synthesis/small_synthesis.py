"""Settings of a small synthesis from `smooth_teacher`, and its objective from the formulas."""

import numpy as np

from cake_jax.synthesis import SynthesisSettings, Weights

SETTINGS = SynthesisSettings(
    num_batches=3, batch_size=15, num_groups=3, num_steps=4, step_size=0.05, weights=Weights(cls=2.0, contr=0.5, tv=3.0)
)


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def total_variation(x):
    """The total variation of images `[..., H, W, C]`, averaged over the images."""
    return np.abs(np.diff(x, axis=-3)).mean() + np.abs(np.diff(x, axis=-2)).mean()


def soft_nearest_neighbour(logits, labels, temperature):
    """Equation 1 of arXiv 1902.01889, over the samples that have a mate."""
    near = np.exp(-np.square(logits[:, None] - logits).sum(axis=-1) / temperature)
    np.fill_diagonal(near, 0)
    mates = (near * (labels[:, None] == labels)).sum(axis=1)
    return -np.log(mates[mates > 0] / near.sum(axis=1)[mates > 0]).mean()


def objective_by_formula(x, logits_of, target, settings):
    """The objective L of a whole mini-batch in NumPy.

    Args:
      x: Sets, `[S, G, *shape]`.
      logits_of: Function of samples `[N, *shape]` to logits `[N, K]`.
      target: Target classes, `[S, G]`.
      settings: The settings. Functions in them must take NumPy arrays.
    """
    groups, weights, labels = settings.num_groups, settings.weights, target.ravel()
    flat = logits_of(x.reshape(-1, *x.shape[2:]))
    logits = flat.reshape(*target.shape, -1)
    total = weights.cls * groups * -log_softmax(flat)[np.arange(len(flat)), labels].mean()
    if settings.contrastive == "snn":
        contr = 0.5 * groups**2 / soft_nearest_neighbour(flat, labels, settings.snn_temperature)
    elif callable(settings.contrastive):
        contr = np.mean([settings.contrastive(one_set) for one_set in logits])
    else:
        contr = 0.5 * groups**2 * np.square(logits[:, :, None] - logits[:, None, :]).mean()
    mean_p = np.exp(log_softmax(flat)).mean(axis=0)
    entropy = (mean_p * np.log10(mean_p)).mean()
    total += weights.contr * contr + weights.tv * total_variation(x) + weights.entropy * entropy
    return total + sum(weight * prior.value(x).mean() for prior, weight in weights.priors)
