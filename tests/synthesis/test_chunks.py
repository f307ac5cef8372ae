"""The number of sets that take their steps together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax.methods.inversion import InversionSettings
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.synthesis.chunks import sets_per_chunk
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec

SETTINGS = SynthesisSettings(batch_size=500, num_groups=10)


def sets_of(width, settings=SETTINGS):
    """Sets in a chunk, for a linear teacher with 1,000 x `width` x 2 operations a sample."""
    teacher = Teacher(jnp.zeros((1000, width)), lambda variables, x: x @ variables, DataSpec((1000,), width))
    return sets_per_chunk(teacher, settings)


def test_a_costlier_teacher_has_smaller_chunks():
    """A set costs 20,000 x width operations. The 50 sets make 4, 8 and 52 chunks."""
    assert [sets_of(10), sets_of(1000), sets_of(20_000)] == [13, 7, 1]


def test_a_given_number_is_used():
    assert sets_of(10, dataclasses.replace(SETTINGS, sets_per_chunk=3)) == 3


def test_coupled_sets_are_one_chunk_on_each_device():
    for weights in (Weights(entropy=1.0), Weights(contr=1.0)):
        settings = dataclasses.replace(SETTINGS, weights=weights, contrastive="snn", sets_per_chunk=3)
        assert sets_of(20_000, settings) == 25
    assert sets_of(20_000, InversionSettings(batch_size=500, num_groups=10)) == 25


def test_a_teacher_of_unknown_cost_counts_as_cheap():
    def apply(variables, x):
        return jax.pure_callback(lambda x: np.zeros((len(x), 10), np.float32), jnp.zeros((len(x), 10)), x)

    assert sets_per_chunk(Teacher((), apply, DataSpec((4,), 10)), SETTINGS) == 13
