"""Random keys: how a run's key is split, and which numbers are folded into the key of the synthesis.

Every draw comes from a key with a name. The name and a number (of an epoch, a round or a set) decide the draw, so that
it depends neither on the number of devices nor on where a run was interrupted.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax import Array


class RunKeys(NamedTuple):
    """The keys of the three stages of a run."""

    teacher: Array
    synthesis: Array
    student: Array


def run_keys(seed: int) -> RunKeys:
    """The keys of a run with this seed."""
    teacher, synthesis, student = jax.random.split(jax.random.key(seed), 3)
    return RunKeys(teacher, synthesis, student)


class TrainingKeys(NamedTuple):
    """The keys of one training.

    Attributes:
      split: Divides the examples into training and validation.
      order: Orders the examples of an epoch.
      batches: Draws what a batch needs, such as augmentation.
    """

    split: Array
    order: Array
    batches: Array


def training_keys(key: Array) -> TrainingKeys:
    """The keys of a training whose own key is `key`."""
    split, order = jax.random.split(key)
    return TrainingKeys(split, order, batches=jax.random.fold_in(key, 2))


# Set s of the synthesis folds in the number s, counted from 0. The other uses fold in the highest numbers.
_METHOD_STATE, _GUIDE_STUDENT, _PAIRS = (np.uint32(2**32 - n) for n in (1, 2, 3))


def set_key(key: Array, number: Array | int) -> Array:
    """The key of a set, given by its number in the whole synthesis."""
    return jax.random.fold_in(key, number)


def method_state(key: Array) -> Array:
    """The key of the state that a method starts with."""
    return jax.random.fold_in(key, _METHOD_STATE)


def guide_student(key: Array) -> Array:
    """The key of the guide student."""
    return jax.random.fold_in(key, _GUIDE_STUDENT)


def pairs(key: Array, batch: int) -> Array:
    """The key that pairs the samples of a mini-batch."""
    return jax.random.fold_in(jax.random.fold_in(key, _PAIRS), batch)
