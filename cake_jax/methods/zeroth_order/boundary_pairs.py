"""Pairs at the decision boundary of a teacher that answers labels alone.

Start samples with different labels are paired. Then the line between the two samples of a pair is bisected. Each query
halves their distance, and their labels stay different. In the end the two samples are close to the boundary, one on
each side. Such pairs are like CAKE's sets (arXiv 2306.02090), but need no gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import random_keys
from cake_jax.methods.zeroth_order.settings import ZerothOrderSettings, num_pairs
from cake_jax.synthesis import draw_batch, labelled
from cake_jax.types import CakeError, Queryable, SampleBatch

Logits = Callable[[np.ndarray], np.ndarray]


class BoundaryInfo(NamedTuple):
    """Diagnostics of a mini-batch, scalars on the host.

    Attributes:
      labels: Number of different labels among the samples.
      distance_start: Root mean squared difference between the two start samples of a pair, median over the pairs.
      distance: Root mean squared difference between the two final samples of a pair, median over the pairs.
    """

    labels: float
    distance_start: float
    distance: float


def draw_pairs(key: Array, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs samples of different labels, so that all labels occur equally often in expectation.

    Args:
      key: A JAX random key.
      labels: Labels of the samples, `[N]` int. At least two are different.

    Returns:
      Two arrays `[num_pairs(N)]`: row numbers of the first samples, and of the second samples. A sample may be in
      several pairs.
    """
    first_key, second_key = jax.random.split(key)
    log_weights = -jnp.log((labels[:, None] == labels).sum(axis=1))
    first = jax.random.categorical(first_key, log_weights, shape=(num_pairs(len(labels)),))
    log_weights = jnp.where(labels[first][:, None] == labels, -jnp.inf, log_weights)
    return np.asarray(first), np.asarray(jax.random.categorical(second_key, log_weights))


def bisect(teacher: Logits, x: np.ndarray, logits: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Bisects the line between the two samples of each pair, `num_steps` times.

    If the midpoint of a pair has the first sample's label, it replaces the first sample. Otherwise it replaces the
    second sample.

    Args:
      teacher: A function of inputs `[B, *shape]` that returns logits `[B, K]`. Only their argmax is used.
      x: P pairs of samples with different labels, `[2, P, *shape]`.
      logits: The teacher's logits of x, `[2, P, K]`.
      num_steps: k, the number of bisections. Each costs P queries and halves the distance in each pair.

    Returns:
      The final samples and their logits, in the shapes of `x` and `logits`.
    """
    x, logits = x.copy(), logits.copy()
    for _ in range(num_steps):
        middle = x.mean(axis=0)
        answers = teacher(middle)
        place = (answers.argmax(-1) != logits[0].argmax(-1)).astype(int), np.arange(len(middle))
        x[place], logits[place] = middle, answers
    return x, logits


def minibatch(
    key: Array, teacher: Queryable, settings: ZerothOrderSettings, batch: int
) -> tuple[SampleBatch, BoundaryInfo]:
    """Makes the pairs of mini-batch number `batch`.

    Args:
      key: The key of the whole synthesis. The start samples are those of `synthesis.minibatch`.
      teacher: The teacher. Only its labels are used.
      settings: Settings that `prepare` returns.
      batch: m, the number of the mini-batch, from 0 to M - 1.

    Returns:
      The samples, pair by pair, and diagnostics. `set_index` is the number of the pair, and `target` is the sample's
      label.

    Raises:
      CakeError: All start samples have the same label, or the black box fails.
    """
    x, _ = draw_batch(key, settings, teacher.spec, batch)
    logits = teacher.predict(x)
    labels = logits.argmax(-1)
    if (labels == labels[0]).all():
        raise CakeError(
            f"synthesis.start: all start samples of mini-batch {batch} have the label {labels[0]}; "
            "try another start or a larger synthesis.batch_size"
        )
    chosen = np.stack(draw_pairs(random_keys.pairs(key, batch), labels))
    start = x[chosen]
    ends, logits = bisect(teacher.predict, start, logits[chosen], settings.bisections)
    info = BoundaryInfo(float(len(np.unique(logits.argmax(-1)))), _distance(start), _distance(ends))
    count, pairs = settings.batch_size, chosen.shape[1]
    ends, logits = (array.swapaxes(0, 1).reshape(2 * pairs, *array.shape[2:])[:count] for array in (ends, logits))
    samples = labelled(ends, logits, logits.argmax(-1).astype(np.int32), settings, batch)
    numbers = batch * pairs + np.repeat(np.arange(pairs, dtype=np.int32), 2)[:count]
    return samples._replace(set_index=numbers), info


def _distance(pairs: np.ndarray) -> float:
    difference = np.square(pairs[0] - pairs[1])
    return float(np.median(np.sqrt(difference.mean(axis=tuple(range(1, difference.ndim))))))
