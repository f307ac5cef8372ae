"""The kinds of answers of a black box, and their conversion to logits."""

from typing import Any

import numpy as np

from cake_jax.types import CakeError, first_line

KINDS = ("labels", "scores", "logits")

# The logit of a label's class. The other classes have 0. exp(-110) is 0 in float32, so the softmax is exactly one-hot.
LABEL_LOGIT = 110.0
# The largest distance of a sum of scores from 1. Scores that are rounded to a few decimals may be farther from it.
SUM_TOLERANCE = 0.02
# Scores below the smallest normal float32 are raised to it. The logits stay finite, and their softmax is the scores.
SMALLEST_SCORE = float(np.finfo(np.float32).tiny)
_IF_LOGITS = "if these are logits, set answers to logits"


def empty_answers(kind: str, num_rows: int, num_classes: int) -> np.ndarray:
    """Returns an uninitialised array for answers: labels `[B]` int32, or scores or logits `[B, K]` float32."""
    return np.empty(num_rows, np.int32) if kind == "labels" else np.empty((num_rows, num_classes), np.float32)


def checked_answers(answers: Any, kind: str, num_rows: int, num_classes: int) -> np.ndarray:
    """Returns valid answers as an array of one type.

    Args:
      answers: Answers of the teacher, in any form that NumPy converts to an array.
      kind: Kind of the answers, one of `KINDS`.
      num_rows: Number of inputs B.
      num_classes: Number of classes K.

    Returns:
      Labels `[B]` int32, or scores or logits `[B, K]` float32.

    Raises:
      CakeError: The answers have another shape or type, are not finite, or are not classes or probabilities.
    """
    try:
        array = np.asarray(answers)
    except Exception as error:  # lists of different lengths, or an object that refuses the conversion
        raise CakeError(f"teacher: its answers are not an array of numbers: {first_line(error)}") from error
    expected = empty_answers(kind, num_rows, num_classes).shape
    if array.shape != expected:
        raise CakeError(f"teacher: its {kind} for {num_rows} inputs have shape {array.shape}, not {expected}")
    if array.dtype.kind not in ("iu" if kind == "labels" else "iuf"):
        numbers = "integers" if kind == "labels" else "real numbers"
        raise CakeError(f"teacher: its {kind} have type {array.dtype}; they must be {numbers}")
    if kind == "labels":
        if array.size and not 0 <= array.min() <= array.max() < num_classes:
            wrong = array[(array < 0) | (array >= num_classes)][0]
            raise CakeError(f"teacher: its label {wrong} is not a class; classes are 0 to {num_classes - 1}")
        return array.astype(np.int32)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise CakeError(f"teacher: its {kind} are not finite")
    if kind == "scores":
        if array.size and array.min() < 0:
            raise CakeError(f"teacher: its score {array.min()} is not a probability; {_IF_LOGITS}")
        distance = np.abs(array.sum(-1, dtype=np.float64) - 1)
        if array.size and distance.max() > max(SUM_TOLERANCE, _rounding(array)):
            raise CakeError(f"teacher: its scores sum to {array[distance.argmax()].sum():.4g}, not 1; {_IF_LOGITS}")
    return array


def _rounding(scores: np.ndarray) -> float:
    """How far the sum of K scores may be from 1 because each was rounded to one, two or three decimals."""
    for decimals in (1, 2, 3):
        if np.abs(scores - scores.round(decimals)).max() < 1e-6:
            return scores.shape[1] * 0.5 * 10.0**-decimals + 1e-6
    return 0.0


def to_logits(answers: np.ndarray, kind: str, num_classes: int) -> np.ndarray:
    """Converts valid answers to logits.

    A label becomes `LABEL_LOGIT` for its class and 0 for the others. Scores become their natural logarithm.

    Args:
      answers: Labels `[B]`, or scores or logits `[B, K]`, as `checked_answers` returns them.
      kind: Kind of the answers, one of `KINDS`.
      num_classes: Number of classes K.

    Returns:
      Logits `[B, K]` float32.
    """
    if kind == "labels":
        logits = np.zeros((len(answers), num_classes), np.float32)
        logits[np.arange(len(answers)), answers] = LABEL_LOGIT
        return logits
    if kind == "scores":
        return np.log(np.maximum(answers, np.float32(SMALLEST_SCORE)))
    return answers
