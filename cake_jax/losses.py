"""Losses as pure functions of arrays.

A synthesis loss returns one value for each set or sample. The caller reduces over the mini-batch. So a set's gradient
does not depend on how the sets are divided among loops and devices.

Sizes in the docstrings: a mini-batch has S sets of G samples, so N = S G samples in all. There are K classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax


def classification(logits: Array, target: Array) -> Array:
    """Cross entropy to the target classes, summed over a set.

    Args:
      logits: Logits of sets, `[..., G, K]`.
      target: Target classes, `[..., G]` int.

    Returns:
      One value for each set in nats, `[...]` float32.

    Source: CAKE (arXiv 2306.02090), classification term of the extraction loss.
    """
    return cross_entropy(logits, target).sum(axis=-1)


def contrastive_mse(logits: Array) -> Array:
    """Contrastive term of a set with logits f: `0.5 G^2 mean_{i,j,k} (f_ik - f_jk)^2`.

    The mean runs over all G^2 ordered pairs of samples and all K classes. The code computes the equal expression
    `G sum_i mean_k (f_ik - mean_j f_jk)^2`. It costs O(G K) instead of O(G^2 K), and is accurate in low precision.

    Args:
      logits: Logits f of sets, `[..., G, K]`. The G samples of a set have different target classes.

    Returns:
      One value for each set in squared logit units, `[...]` float32.

    Source: CAKE (arXiv 2306.02090), contrastive term, squared distance of logits.
    """
    logits = logits.astype(jnp.float32)
    deviation = logits - logits.mean(axis=-2, keepdims=True)
    return logits.shape[-2] * jnp.square(deviation).mean(axis=-1).sum(axis=-1)


def soft_nearest_neighbour(
    logits: Array, labels: Array, *, temperature: float = 1.0, mask: Array | None = None
) -> Array:
    """Soft nearest neighbour loss of a whole mini-batch. It is low if samples are nearest to samples of their class.

    The loss is `-mean_i log(sum_{j != i, y_j = y_i} exp(-d_ij / s) / sum_{j != i} exp(-d_ij / s))`. d_ij is the squared
    distance between logits i and j. A mate of a sample is another sample of its class. The mean leaves out samples
    without a mate.

    Args:
      logits: Logits, `[N, K]`.
      labels: Classes y, `[N]` int.
      temperature: s, in squared logit units.
      mask: `[N]` bool. False removes a sample, also as a neighbour of others.

    Returns:
      The loss in nats, scalar float32. 0 if no sample has a mate.

    Source: Frosst, Papernot, Hinton 2019 (arXiv 1902.01889), equation 1.
    """
    # Centred logits have the same distances. A large common offset would make the expansion into squares inaccurate.
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
    # A row without a mate would be log 0. Such a row takes all pairs, so that its gradient is finite. `has_mate` then
    # removes it.
    score = -distance / temperature
    near = jax.nn.logsumexp(score, axis=-1, where=mate | ~has_mate[:, None])
    every = jax.nn.logsumexp(score, axis=-1, where=other | ~has_mate[:, None])
    per_sample = jnp.where(has_mate, every - near, 0.0)
    return per_sample.sum() / jnp.maximum(has_mate.sum(), 1)


def total_variation(x: Array) -> Array:
    """Anisotropic total variation: mean absolute vertical plus horizontal difference, averaged over channels.

    Args:
      x: Images with any number of channels, `[..., H, W, C]`. H and W are at least 2.

    Returns:
      One value for each image in units of x, `[...]` float32.

    Source: CAKE (arXiv 2306.02090), data prior for images, in mean form.
    """
    # Flattened images give long inner loops. Differences across the end of a row are left out.
    height, width, channels = x.shape[-3:]
    row = width * channels
    flat = x.astype(jnp.float32).reshape(-1, height * row)
    vertical = jnp.abs(flat[:, row:] - flat[:, :-row]).sum(axis=-1) / ((height - 1) * row)
    inside = np.tile(np.arange(row) < row - channels, height)[None, :-channels]
    horizontal = jnp.where(inside, jnp.abs(flat[:, channels:] - flat[:, :-channels]), 0.0).sum(axis=-1)
    return (vertical + horizontal / (height * (row - channels))).reshape(x.shape[:-3])


def moment_distance(mean: Array, var: Array, known_mean: Array, known_var: Array) -> Array:
    """Distance of the moments of a layer's inputs from known moments: `||mean - known|| + ||var - known||`, L2 norms.

    Args:
      mean: Means of C channels, `[C]`.
      var: Variances of C channels, `[C]`.
      known_mean: Known means, `[C]`.
      known_var: Known variances, `[C]`.

    Returns:
      Scalar float32. Its gradient is 0 if the moments are equal.

    Source: DeepInversion, Yin et al. 2020 (arXiv 1912.08795), equation 4.
    """
    return optax.safe_norm(mean - known_mean, 1e-12) + optax.safe_norm(var - known_var, 1e-12)


def negative_entropy(probabilities: Array) -> Array:
    """Mean over classes of `p log10 p`. It is low if the classes are evenly used.

    Args:
      probabilities: p, `[..., K]`. The entropy term of a mini-batch passes the mean softmax of its N samples.

    Returns:
      One value for each distribution, `[...]` float32.
    """
    p = probabilities.astype(jnp.float32)
    return jnp.where(p > 0, p * jnp.log10(jnp.where(p > 0, p, 1.0)), 0.0).mean(axis=-1)


def distillation(
    student_logits: Array, teacher_logits: Array, labels: Array, *, temperature: float = 1.0, hard_weight: float = 0.0
) -> Array:
    """Hinton's loss: `w CE(label, softmax(s)) + (1 - w) tau^2 CE(softmax(t / tau), softmax(s / tau))`.

    Args:
      student_logits: The student's logits s, `[..., K]`.
      teacher_logits: The teacher's logits t, `[..., K]`.
      labels: Hard labels, `[...]` int: true classes, or the teacher's argmax.
      temperature: tau, above 0.
      hard_weight: w, from 0 to 1.

    Returns:
      One value for each example in nats, `[...]` float32.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2.
    """
    student_logits = student_logits.astype(jnp.float32)
    soft_labels = jax.nn.softmax(teacher_logits.astype(jnp.float32) / temperature)
    soft = optax.losses.softmax_cross_entropy(student_logits / temperature, soft_labels)
    loss = (1.0 - hard_weight) * temperature**2 * soft
    if hard_weight:
        loss += hard_weight * cross_entropy(student_logits, labels)
    return loss


def logit_distance(student_logits: Array, teacher_logits: Array, *, power: int) -> Array:
    """Mean over classes of `|s_k - t_k|^power`, after the mean of each example's logits is subtracted.

    A softmax does not see the mean of the logits, so the student need not learn it.

    Args:
      student_logits: The student's logits s, `[..., K]`.
      teacher_logits: The teacher's logits t, `[..., K]`.
      power: 1 or 2.

    Returns:
      One value for each example, in logit units to this power, `[...]` float32.

    Source: for power 1, the discrepancy of DFAD (arXiv 1912.11006); for power 2, Ba, Caruana 2014 (arXiv 1312.6184),
      section 2.2. Neither subtracts the mean.
    """
    difference = student_logits.astype(jnp.float32) - teacher_logits.astype(jnp.float32)
    difference -= difference.mean(axis=-1, keepdims=True)
    return (jnp.abs(difference) ** power).mean(axis=-1)


def kl_divergence(student_logits: Array, teacher_logits: Array) -> Array:
    """`KL(teacher || student)` at temperature 1.

    Args:
      student_logits: The student's logits, `[..., K]`.
      teacher_logits: The teacher's logits, `[..., K]`.

    Returns:
      One value for each example in nats, `[...]` float32.
    """
    log_student = jax.nn.log_softmax(student_logits.astype(jnp.float32))
    log_teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
    return optax.losses.kl_divergence_with_log_targets(log_student, log_teacher)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross entropy to hard labels.

    Args:
      logits: Logits, `[..., K]`.
      labels: Hard labels, `[...]` int.

    Returns:
      One value for each example in nats, `[...]` float32.
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def multiclass_hinge(logits: Array, labels: Array) -> Array:
    """Multi-class hinge loss: `(1 / K) sum_{k != y} max(0, 1 - f_y + f_k)`.

    Args:
      logits: Logits f, `[..., K]`.
      labels: Classes y, `[...]` int.

    Returns:
      One value for each example in logit units, `[...]` float32.

    Source: Weston, Watkins 1998, *Multi-class support vector machines*. The factor 1 / K is that of PyTorch's
    `multi_margin_loss`.
    """
    logits = logits.astype(jnp.float32)
    right = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    others = ~jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(others, jnp.maximum(0.0, 1.0 - right + logits), 0.0).mean(axis=-1)
