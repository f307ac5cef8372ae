"""Labels: what a model learns from."""

from typing import Any, NamedTuple

import numpy as np


class Labels(NamedTuple):
    """Labels of N examples, on the host or in a compiled program.

    Attributes:
      classes: Hard labels, `[N]` int.
      logits: The teacher's logits, `[N, K]`. None if the labels are classes alone.
    """

    classes: Any
    logits: Any = None


def from_logits(logits: np.ndarray) -> Labels:
    """Labels of the teacher's logits `[N, K]`: the hard label is the argmax."""
    return Labels(logits.argmax(axis=-1).astype(np.int32), logits)
