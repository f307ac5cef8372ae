"""Random keys: how a run's key is split, and which numbers are folded into the key of the synthesis.

Every draw has a named key and the number of an epoch, a round or a set. Only the name and the number decide the draw.
So a draw depends neither on the number of devices nor on where a run was interrupted. The exception is the dropout of
Linen and NNX modules, which depends on the number of devices.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from cake_jax import checks
from cake_jax.types import CakeError

# The kinds of legacy keys by their shape.
_LEGACY = {(2,): "threefry2x32", (4,): "rbg"}


def as_key(key: Any) -> Array:
    """Converts a legacy key of `jax.random.PRNGKey` to a typed key. A typed key is returned unchanged.

    Raises:
      CakeError: `key` is not one random key.
    """
    if getattr(key, "dtype", None) == np.uint32 and getattr(key, "shape", None) in _LEGACY:
        return jax.random.wrap_key_data(key, impl=_LEGACY[key.shape])
    if getattr(key, "shape", None) != () or not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise CakeError(f"key: {checks.shown(key)} is not a random key; pass jax.random.key(0)")
    return key


class RunKeys(NamedTuple):
    """The keys of the three stages of a run."""

    teacher: Array
    synthesis: Array
    student: Array


def run_keys(seed: int) -> RunKeys:
    """The keys of a run with this seed."""
    teacher, synthesis, student = jax.random.split(jax.random.key(seed), 3)
    return RunKeys(teacher, synthesis, student)


# An example's key folds in its place in the batch, counted from 0. The key of dropout folds in the highest number.
_DROPOUT = np.uint32(2**32 - 1)


class TrainingKeys(NamedTuple):
    """The keys of one training.

    Attributes:
      split: Key of the division into training and validation examples.
      order: Key of the order of the examples in an epoch.
      batches: Key of the draws for a batch, such as augmentations.
    """

    split: Array
    order: Array
    batches: Array


def training_keys(key: Array) -> TrainingKeys:
    """The keys of a training whose own key is `key`."""
    split, order = jax.random.split(key)
    return TrainingKeys(split, order, batches=jax.random.fold_in(key, 2))


def dropout(key: Array) -> Array:
    """The key of the model's own draws in a step, such as dropout. `key` is the step's, which folds in places."""
    return jax.random.fold_in(key, _DROPOUT)


def batch_maker(key: Array) -> Array:
    """The key of the first state of a `make_batch` that learns, for a model with this key of the weights."""
    return jax.random.fold_in(key, 1)


# The key of set s folds in the number s, counted from 0. The other keys fold in the highest numbers.
_METHOD_STATE, _GUIDE_STUDENT, _PAIRS = (np.uint32(2**32 - n) for n in (1, 2, 3))


def set_key(key: Array, number: Array | int) -> Array:
    """The key of the set with this number in the whole synthesis."""
    return jax.random.fold_in(key, number)


def method_state(key: Array) -> Array:
    """The key of a method's state before the first round."""
    return jax.random.fold_in(key, _METHOD_STATE)


def guide_student(key: Array) -> Array:
    """The key of the guide student."""
    return jax.random.fold_in(key, _GUIDE_STUDENT)


def pairs(key: Array, batch: int) -> Array:
    """The key that pairs the samples of a mini-batch."""
    return jax.random.fold_in(jax.random.fold_in(key, _PAIRS), batch)
