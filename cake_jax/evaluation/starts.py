"""Agreement of two models on procedural images. It needs no data."""

import functools

import jax
import numpy as np
from scipy.special import softmax

from cake_jax.starts import STARTS
from cake_jax.types import DataSpec, Queryable

# Images of each start. The standard error of an agreement is at most 1 %.
_EACH = 1000
# The least number of images on which an agreement is measured.
_FEWEST = 50


def starts_agreement(
    student: Queryable | None, teacher: Queryable | None, least_probability: float = 0.0
) -> float | None:
    """The share of images from all starts for image data for which both models have the same argmax.

    The images are always the same. A student with a low agreement has failed, but good students are not always in the
    order of their accuracy.

    Args:
      student: The student, or None.
      teacher: The teacher, or None. Its queries must be free.
      least_probability: Only images count for which the teacher gives its class at least this probability.

    Returns:
      The agreement, from 0 to 1. None if a model is missing, the inputs are no images, or fewer than 50 images count.
    """
    if student is None or teacher is None or not student.spec.is_image:
        return None
    x = _images(student.spec)
    logits = teacher.predict(x)
    counts = softmax(logits, axis=1).max(axis=1) >= least_probability
    if counts.sum() < _FEWEST:
        return None
    return float(np.mean(student.predict(x).argmax(axis=1)[counts] == logits.argmax(axis=1)[counts]))


@functools.cache
def _images(spec: DataSpec) -> np.ndarray:
    """Images of all starts for image data, `[N, *shape]`."""
    draws = [start.draw for start in STARTS.values() if start.needs_images]
    keys = jax.random.split(jax.random.key(0), len(draws))
    return np.concatenate(
        [jax.jit(draw, static_argnums=(1, 2))(key, _EACH, spec) for draw, key in zip(draws, keys, strict=True)]
    )
