"""A small problem for the trainer: 205 points of 6 values in 3 classes."""

import jax
import numpy as np

from cake_jax.training import TrainSettings, classification_loss, trainer
from cake_jax.types import DataSpec

SPEC = DataSpec((6,), 3)
SETTINGS = TrainSettings(epochs=4, batch_size=20, learning_rate=0.1, validation_fraction=0.2, schedule="constant")
KEY = jax.random.key(0)


def history(module, x, labels, settings=SETTINGS, *, loss=classification_loss, state=None, **options):
    """The states and figures of all epochs, from new weights or from `state`."""
    state = state or trainer.init(KEY, module, SPEC, settings)
    return list(trainer.epochs(KEY, state, module, SPEC, x, labels, settings, loss=loss, **options))


def shuffled(key, count):
    """The numbers 0 to count - 1 in the order that the trainer draws from a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(count)
