"""The labels that a model learns from."""

from typing import Any, NamedTuple

import numpy as np


class Labels(NamedTuple):
    """Labels of N examples, on the host or in a compiled program.

    Attributes:
      classes: Hard labels, `[N]` int.
      logits: The teacher's logits, `[N, K]`. None if there are only hard labels.
    """

    classes: Any
    logits: Any = None


def from_logits(logits: Any) -> Labels:
    """Makes labels from the teacher's logits `[N, K]`. The hard label is the argmax."""
    return Labels(logits.argmax(axis=-1).astype(np.int32), logits)
