"""What a teacher that can only be queried may answer, and what that is as logits."""

from typing import Any

import numpy as np

from cake_jax.types import CakeError, first_line

KINDS = ("labels", "scores", "logits")

# The logit of a label's class, where the others have 0: exp(-110) is 0 in float32, so the softmax is one-hot exactly.
LABEL_LOGIT = 110.0
# Scores count as probabilities if their sum is this close to 1: room for percentages without decimals, and for float16.
SUM_TOLERANCE = 0.02
# A score of 0 counts as the smallest normal float32: the logits stay finite, and their softmax is the scores.
SMALLEST_SCORE = float(np.finfo(np.float32).tiny)


def room(kind: str, num_rows: int, num_classes: int) -> np.ndarray:
    """An array for answers: labels `[B]` int32, scores or logits `[B, K]` float32."""
    return np.empty(num_rows, np.int32) if kind == "labels" else np.empty((num_rows, num_classes), np.float32)


def checked(answers: Any, kind: str, num_rows: int, num_classes: int) -> np.ndarray:
    """Answers as arrays of one type, if they are what they should be.

    Args:
      answers: What the teacher gave: anything that NumPy makes an array of.
      kind: One of `KINDS`.
      num_rows: Number of inputs B.
      num_classes: Number of classes K.

    Returns:
      Labels `[B]` int32; scores or logits `[B, K]` float32.

    Raises:
      CakeError: They are of another shape or type, not finite, no classes, or no probabilities.
    """
    try:
        array = np.asarray(answers)
    except Exception as error:  # lists of different lengths, or an object that does not want to be an array
        raise CakeError(f"teacher: its answers are no array of numbers: {first_line(error)}") from error
    wanted = room(kind, num_rows, num_classes).shape
    if array.shape != wanted:
        raise CakeError(f"teacher: answers {array.shape} to {num_rows} inputs, not the {kind} {wanted}")
    if array.dtype.kind not in ("iu" if kind == "labels" else "iuf"):
        raise CakeError(f"teacher: its {kind} are of type {array.dtype}, which are not {kind}")
    if kind == "labels":
        if array.size and not 0 <= array.min() <= array.max() < num_classes:
            wrong = array[(array < 0) | (array >= num_classes)][0]
            raise CakeError(f"teacher: answers the label {wrong}; classes are 0 to {num_classes - 1}")
        return array.astype(np.int32)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise CakeError(f"teacher: its {kind} are not finite")
    if kind == "scores":
        if array.size and array.min() < 0:
            raise CakeError(f"teacher: answers the score {array.min()}, which is no probability; are they logits?")
        far = np.abs(array.sum(-1, dtype=np.float64) - 1)
        if array.size and far.max() > SUM_TOLERANCE:
            raise CakeError(f"teacher: its scores sum to {array[far.argmax()].sum():.4g}, not 1; are they logits?")
    return array


def to_logits(answers: np.ndarray, kind: str, num_classes: int) -> np.ndarray:
    """Logits of answers that `checked` gave.

    Args:
      answers: Labels `[B]`, scores `[B, K]` or logits `[B, K]`.
      kind: One of `KINDS`.
      num_classes: Number of classes K.

    Returns:
      `[B, K]` float32. Of a label: `LABEL_LOGIT` for its class, 0 for the others. Of scores: their natural logarithm.
    """
    if kind == "labels":
        return np.float32(LABEL_LOGIT) * np.eye(num_classes, dtype=np.float32)[answers]
    if kind == "scores":
        return np.log(np.maximum(answers, np.float32(SMALLEST_SCORE)))
    return answers
