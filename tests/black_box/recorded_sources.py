"""A small specification, its inputs, and sources of answers that record their requests."""

import numpy as np

from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 3, mean=(0.5, 0.25), std=(0.5, 0.25), low=0.0, high=1.0)


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(count, 2)).astype(np.float32)


def logits(x):
    return np.concatenate([x, x[:, :1] * x[:, 1:]], axis=1)


class Recorder:
    """A source that records its requests. The items of `first` are raised or returned in place of the first answers."""

    def __init__(self, answer=logits, first=()):
        self.answer, self.first, self.batches = answer, list(first), []

    def __call__(self, x):
        self.batches.append(x)
        if not self.first:
            return self.answer(x)
        answer = self.first.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]

    @property
    def rows(self):
        return np.concatenate(self.batches)


class Clock:
    """Replaces the module `time`. A sleep only advances the clock."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
