"""Pairs at the decision boundary of a teacher that answers labels alone.

Start samples of different labels are paired. Then the line between the samples of a pair is bisected: each query halves
the distance of the two samples, which keep different labels. The result is pairs of samples on both sides of the
boundary and close to it, like CAKE's sets (arXiv 2306.02090), without a gradient.
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
      distance_start: Median over the pairs of the root mean squared difference of their samples, at the start.
      distance: The same at the end.
    """

    labels: float
    distance_start: float
    distance: float


class BoundaryBatch(NamedTuple):
    """A mini-batch.

    Attributes:
      samples: The samples, pair by pair. A pair is numbered as a set, and a sample's target class is its label.
      info: Diagnostics.
      queries: Number of queries.
    """

    samples: SampleBatch
    info: BoundaryInfo
    queries: int


def draw_pairs(key: Array, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs samples of different labels, so that all labels occur equally often in expectation.

    Args:
      key: A JAX random key.
      labels: `[N]` int, with at least two different labels.

    Returns:
      Row numbers of the first and of the second sample of each pair, `[num_pairs(N)]` each. A sample may be in several
      pairs.
    """
    first_key, second_key = jax.random.split(key)
    log_weights = -jnp.log((labels[:, None] == labels).sum(axis=1))
    first = jax.random.categorical(first_key, log_weights, shape=(num_pairs(len(labels)),))
    log_weights = jnp.where(labels[first][:, None] == labels, -jnp.inf, log_weights)
    return np.asarray(first), np.asarray(jax.random.categorical(second_key, log_weights))


def bisect(teacher: Logits, x: np.ndarray, logits: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Bisects the line between the two samples of each pair, `num_steps` times.

    The middle of a pair replaces the first sample if it has the first sample's label. Otherwise it replaces the second.

    Args:
      teacher: Inputs `[B, *shape]` to logits `[B, K]`, of which only the argmax is used.
      x: Pairs of different labels, `[2, P, *shape]`.
      logits: The teacher's logits of x, `[2, P, K]`.
      num_steps: k. Each step costs P queries and halves the distance of each pair.

    Returns:
      x and logits of the same shapes.
    """
    x, logits = x.copy(), logits.copy()
    for _ in range(num_steps):
        middle = x.mean(axis=0)
        answers = teacher(middle)
        place = (answers.argmax(-1) != logits[0].argmax(-1)).astype(int), np.arange(len(middle))
        x[place], logits[place] = middle, answers
    return x, logits


def minibatch(key: Array, teacher: Queryable, settings: ZerothOrderSettings, batch: int) -> BoundaryBatch:
    """Makes the pairs of mini-batch number `batch`.

    Args:
      key: The key of the whole synthesis. The starts are those of `synthesis.minibatch`.
      teacher: The teacher. Only its labels are used.
      settings: Settings that `prepare` returns.
      batch: m, from 0 to M - 1.

    Raises:
      CakeError: All starts have the same label, or the black box fails.
    """
    x, _ = draw_batch(key, settings, teacher.spec, batch)
    logits = teacher.predict(x)
    labels = logits.argmax(-1)
    if (labels == labels[0]).all():
        raise CakeError(
            f"synthesis.start: the teacher gives all samples of mini-batch {batch} the label {labels[0]}, so there is "
            "no boundary between them; try another start or a larger synthesis.batch_size"
        )
    chosen = np.stack(draw_pairs(random_keys.pairs(key, batch), labels))
    start, num_steps = x[chosen], settings.bisections
    ends, logits = bisect(teacher.predict, start, logits[chosen], num_steps)
    info = BoundaryInfo(float(len(np.unique(logits.argmax(-1)))), _distance(start), _distance(ends))
    count, pairs = settings.batch_size, chosen.shape[1]
    ends, logits = (array.swapaxes(0, 1).reshape(2 * pairs, *array.shape[2:])[:count] for array in (ends, logits))
    samples = labelled(ends, logits, logits.argmax(-1).astype(np.int32), settings, batch)
    numbers = batch * pairs + np.repeat(np.arange(pairs, dtype=np.int32), 2)[:count]
    return BoundaryBatch(samples._replace(set_index=numbers), info, count + pairs * num_steps)


def _distance(pairs: np.ndarray) -> float:
    difference = np.square(pairs[0] - pairs[1])
    return float(np.median(np.sqrt(difference.mean(axis=tuple(range(1, difference.ndim))))))
