"""Losses as pure functions of arrays.

Synthesis losses take a set axis and return one value a set or a sample; the caller reduces over the mini-batch, so
that a set's gradient does not depend on how sets are spread over loops and devices. Numbers in the docstrings: S sets
of G samples, K classes, N = S G samples of a mini-batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax


def classification(logits: Array, target: Array) -> Array:
    """Cross entropy to the target classes, summed over a set: G times its mean.

    Args:
      logits: `[..., G, K]`.
      target: Target classes, `[..., G]` int.

    Returns:
      Nats, `[...]` float32.

    Source: CAKE (arXiv 2306.02090), the classification term of the extraction loss.
    """
    return cross_entropy(logits, target).sum(axis=-1)


def contrastive_mse(logits: Array) -> Array:
    """Contrastive pull between the samples of a set: `0.5 G^2 mean_{i,j,k} (z_ik - z_jk)^2`.

    The mean runs over all G^2 ordered pairs and K classes. It is computed as `G sum_i mean_k (z_ik - zbar_k)^2`: equal,
    O(G K) instead of O(G^2 K), and it does not cancel in low precision.

    Args:
      logits: `[..., G, K]`; the G samples of a set have different target classes.

    Returns:
      `[...]` float32.

    Source: CAKE (arXiv 2306.02090), the contrastive term, squared distance of logits.
    """
    logits = logits.astype(jnp.float32)
    deviation = logits - logits.mean(axis=-2, keepdims=True)
    return logits.shape[-2] * jnp.square(deviation).mean(axis=-1).sum(axis=-1)


def soft_nearest_neighbour(
    logits: Array, labels: Array, *, temperature: float = 1.0, mask: Array | None = None
) -> Array:
    """Soft nearest neighbour loss over a whole mini-batch; low where samples lie nearest to their own class.

    `-mean_i log(sum_{j != i, y_j = y_i} exp(-d_ij / T) / sum_{j != i} exp(-d_ij / T))`, with squared distances d of
    logits. Samples without a mate of their class are left out of the mean.

    Args:
      logits: `[N, K]`.
      labels: `[N]` int.
      temperature: T, in squared logit units.
      mask: `[N]` bool; False takes a sample out altogether.

    Returns:
      Scalar float32; 0 where no sample has a mate.

    Source: Frosst, Papernot, Hinton 2019 (arXiv 1902.01889), equation 1.
    """
    # Distances do not change with a common offset, but their expansion into squares would cancel with a large one.
    kept = jnp.ones(logits.shape[0], bool) if mask is None else mask
    logits = jnp.where(kept[:, None], logits.astype(jnp.float32), 0.0)
    centre = lax.stop_gradient(logits.sum(axis=0) / jnp.maximum(kept.sum(), 1))
    logits = jnp.where(kept[:, None], logits - centre, 0.0)
    square = jnp.square(logits).sum(axis=-1)
    product = jnp.matmul(logits, logits.T, precision=lax.Precision.HIGHEST)
    distance = jnp.maximum(square[:, None] + square[None, :] - 2 * product, 0.0)
    other = ~jnp.eye(logits.shape[0], dtype=bool) & kept[:, None] & kept[None, :]
    mate = other & (labels[:, None] == labels[None, :])
    has_mate = mate.any(axis=-1)
    # A row without a mate would be log 0; its gradient is kept finite by giving it every pair, then it is left out.
    score = -distance / temperature
    near = jax.nn.logsumexp(score, axis=-1, where=mate | ~has_mate[:, None])
    every = jax.nn.logsumexp(score, axis=-1, where=other | ~has_mate[:, None])
    per_sample = jnp.where(has_mate, every - near, 0.0)
    return per_sample.sum() / jnp.maximum(has_mate.sum(), 1)


def total_variation(x: Array) -> Array:
    """Anisotropic total variation: mean over channels of (mean |vertical| + mean |horizontal| differences).

    Args:
      x: Images with any number of channels, `[..., H, W, C]`, H and W at least 2.

    Returns:
      Per image, in units of x, `[...]` float32.

    Source: CAKE (arXiv 2306.02090), the data prior for images, in mean form.
    """
    # Whole images as vectors make long loops; the horizontal differences that would cross a row's end are left out.
    height, width, channels = x.shape[-3:]
    row = width * channels
    flat = x.astype(jnp.float32).reshape(-1, height * row)
    vertical = jnp.abs(flat[:, row:] - flat[:, :-row]).sum(axis=-1) / ((height - 1) * row)
    inside = np.tile(np.arange(row) < row - channels, height)[None, :-channels]
    horizontal = jnp.where(inside, jnp.abs(flat[:, channels:] - flat[:, :-channels]), 0.0).sum(axis=-1)
    return (vertical + horizontal / (height * (row - channels))).reshape(x.shape[:-3])


def moment_distance(mean: Array, var: Array, known_mean: Array, known_var: Array) -> Array:
    """How far the moments of a layer's inputs are from known ones: `||mean - known|| + ||var - known||`, L2 norms.

    Args:
      mean: `[C]`.
      var: `[C]`.
      known_mean: `[C]`.
      known_var: `[C]`.

    Returns:
      Scalar float32; its gradient is 0 where the moments are equal.

    Source: DeepInversion, Yin et al. 2020 (arXiv 1912.08795), equation 4.
    """
    return optax.safe_norm(mean - known_mean, 1e-12) + optax.safe_norm(var - known_var, 1e-12)


def negative_entropy(probabilities: Array) -> Array:
    """Mean over classes of `p log10 p`; low where the classes are evenly used.

    Args:
      probabilities: `[..., K]`; for the mini-batch prior, the mean softmax of its N samples.

    Returns:
      `[...]` float32.
    """
    p = probabilities.astype(jnp.float32)
    return jnp.where(p > 0, p * jnp.log10(jnp.where(p > 0, p, 1.0)), 0.0).mean(axis=-1)


def distillation(
    student_logits: Array, teacher_logits: Array, labels: Array, *, temperature: float = 1.0, hard_weight: float = 0.0
) -> Array:
    """Hinton's loss: `w CE(student, label) + (1 - w) tau^2 CE(softmax(teacher / tau), softmax(student / tau))`.

    Args:
      student_logits: `[..., K]`.
      teacher_logits: `[..., K]`.
      labels: Hard labels, `[...]` int; the teacher's argmax where there is no other.
      temperature: tau, at least above 0.
      hard_weight: w, between 0 and 1.

    Returns:
      Nats, per example, `[...]` float32.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2.
    """
    student_logits = student_logits.astype(jnp.float32)
    soft_labels = jax.nn.softmax(teacher_logits.astype(jnp.float32) / temperature)
    soft = optax.losses.softmax_cross_entropy(student_logits / temperature, soft_labels)
    loss = (1.0 - hard_weight) * temperature**2 * soft
    if hard_weight:
        loss += hard_weight * cross_entropy(student_logits, labels)
    return loss


def kl_divergence(student_logits: Array, teacher_logits: Array) -> Array:
    """`KL(teacher || student)` at temperature 1.

    Args:
      student_logits: `[..., K]`.
      teacher_logits: `[..., K]`.

    Returns:
      Nats, `[...]` float32.
    """
    log_student = jax.nn.log_softmax(student_logits.astype(jnp.float32))
    log_teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
    return optax.losses.kl_divergence_with_log_targets(log_student, log_teacher)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross entropy to hard labels.

    Args:
      logits: `[..., K]`.
      labels: `[...]` int.

    Returns:
      Nats, per example, `[...]` float32.
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def multiclass_hinge(logits: Array, labels: Array) -> Array:
    """`mean_k max(0, 1 - z_y + z_k)`, the term k = y left out of the sum but not of the K that divides it.

    Args:
      logits: Scores z, `[..., K]`.
      labels: Classes y, `[...]` int.

    Returns:
      Per example, `[...]` float32.

    Source: Weston, Watkins 1998, *Multi-class support vector machines*; the mean as in PyTorch's `multi_margin_loss`.
    """
    logits = logits.astype(jnp.float32)
    right = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    others = ~jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(others, jnp.maximum(0.0, 1.0 - right + logits), 0.0).mean(axis=-1)
