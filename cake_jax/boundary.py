"""Contrastive pairs at the decision boundary of a teacher that answers labels alone.

Start samples of different labels are paired, and bisection closes in on the boundary between the two of a pair, one
label a step. What remains are two samples of different labels, near to each other and to the boundary on both sides:
CAKE's sets (arXiv 2306.02090), without a gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import synthesis
from cake_jax.evaluation import predict
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable
from cake_jax.types import CakeError, SampleBatch

Logits = Callable[[np.ndarray], np.ndarray]
# Folded into the synthesis' key, where sets are numbered from 0.
_PAIRS = np.uint32(2**32 - 3)


class BoundaryInfo(NamedTuple):
    """Diagnostics of a mini-batch, scalars on the host.

    Attributes:
      labels: Number of labels among the samples.
      distance_start: Median over the pairs of the root mean squared difference of their two samples, at the start.
      distance: The same at the end.
    """

    labels: float
    distance_start: float
    distance: float


class BoundaryBatch(NamedTuple):
    """A mini-batch.

    Attributes:
      samples: Pair by pair; pairs are numbered as sets, and a sample's label is its target.
      info: Diagnostics.
      queries: Labels asked for.
    """

    samples: SampleBatch
    info: BoundaryInfo
    queries: int


def num_pairs(batch_size: int) -> int:
    """Pairs of a mini-batch; of the last, one sample only is kept where `batch_size` is odd."""
    return -(-batch_size // 2)


def draw_pairs(key: Array, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs samples of different labels, as evenly over the labels as there are any.

    Args:
      key: A key.
      labels: `[N]` int, of two labels or more.

    Returns:
      Numbers of the two samples of each pair, `[num_pairs(N)]` each; a sample may be in several.
    """
    first_key, second_key = jax.random.split(key)
    log_weights = -jnp.log((labels[:, None] == labels).sum(axis=1))
    first = jax.random.categorical(first_key, log_weights, shape=(num_pairs(len(labels)),))
    log_weights = jnp.where(labels[first][:, None] == labels, -jnp.inf, log_weights)
    return np.asarray(first), np.asarray(jax.random.categorical(second_key, log_weights))


def bisect(teacher: Logits, x: np.ndarray, logits: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Closes in on the boundary between the two samples of each pair.

    A middle that has the label of the first sample takes its place, any other that of the second.

    Args:
      teacher: Answers inputs `[B, *shape]` with logits `[B, K]`, of which only the largest counts.
      x: Pairs of different labels, `[2, P, *shape]`.
      logits: The teacher's at x, `[2, P, K]`.
      num_steps: k; each asks for P labels and halves a pair's distance.

    Returns:
      x and logits, as given.
    """
    x, logits = x.copy(), logits.copy()
    for _ in range(num_steps):
        middle = x.mean(axis=0)
        answers = teacher(middle)
        place = (answers.argmax(-1) != logits[0].argmax(-1)).astype(int), np.arange(len(middle))
        x[place], logits[place] = middle, answers
    return x, logits


def minibatch(key: Array, teacher: Queryable, settings: SynthesisSettings, batch: int, num_steps: int) -> BoundaryBatch:
    """The pairs of mini-batch number `batch`.

    Args:
      key: The key of the whole synthesis; the starts are those of `synthesis.minibatch`.
      teacher: What answers with logits, or with what has the label's class for its largest.
      settings: Number, start and step size of the samples.
      batch: m, from 0 to M - 1.
      num_steps: k of `bisect`.

    Raises:
      CakeError: All starts have one label, or what a black box raises.
    """
    x, _ = synthesis.starts(key, settings, teacher.spec, batch)
    logits = predict(teacher, x)
    labels = logits.argmax(-1)
    if (labels == labels[0]).all():
        raise CakeError(
            f"synthesis.start: the teacher gives all samples of mini-batch {batch} the label {labels[0]}, and there is "
            "no boundary between them; try another start or a larger synthesis.batch_size"
        )
    # A key of the mini-batch rather than of a set: those are folded into the bare key.
    chosen = np.stack(draw_pairs(jax.random.fold_in(jax.random.fold_in(key, _PAIRS), batch), labels))
    start, (ends, logits) = x[chosen], bisect(lambda x: predict(teacher, x), x[chosen], logits[chosen], num_steps)
    info = BoundaryInfo(float(len(np.unique(logits.argmax(-1)))), _distance(start), _distance(ends))
    count, pairs = settings.batch_size, chosen.shape[1]
    ends, logits = (array.swapaxes(0, 1).reshape(2 * pairs, *array.shape[2:])[:count] for array in (ends, logits))
    samples = synthesis.labelled(ends, logits, logits.argmax(-1).astype(np.int32), settings, batch)
    numbers = batch * pairs + np.repeat(np.arange(pairs, dtype=np.int32), 2)[:count]
    return BoundaryBatch(samples._replace(set_index=numbers), info, count + pairs * num_steps)


def _distance(pairs: np.ndarray) -> float:
    difference = np.square(pairs[0] - pairs[1])
    return float(np.median(np.sqrt(difference.mean(axis=tuple(range(1, difference.ndim))))))
