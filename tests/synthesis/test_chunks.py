"""The number of sets that take their steps together."""

import dataclasses
from types import SimpleNamespace
from unittest import mock

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
    """A set costs 20,000 x width operations. The 50 sets make 4, 16 and 52 chunks."""
    assert [sets_of(10), sets_of(1000), sets_of(20_000)] == [13, 4, 1]


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


def sets_on_accelerator(memory, layers=1, width=10):
    """Sets in a chunk on an accelerator, for a teacher that keeps 1,000 values of each sample for each layer."""

    def apply(variables, x):
        for _ in range(layers):
            x = jnp.sin(x)
        return x @ variables

    device = SimpleNamespace(memory_stats=lambda: memory and {"bytes_limit": memory})
    teacher = Teacher(jnp.zeros((1000, width)), apply, DataSpec((1000,), width))
    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(jax, "local_devices", return_value=[device]),
    ):
        return sets_per_chunk(teacher, SETTINGS)


def test_a_chunk_on_an_accelerator_is_the_share_of_a_device_if_it_fits():
    """25 sets of 40 kB, and as many bytes for the layer, need a quarter of the memory."""
    assert sets_on_accelerator(100_000_000) == 25
    assert sets_on_accelerator(4 * 25 * 80_000) == 25


def test_a_share_that_does_not_fit_is_divided_into_equal_chunks():
    assert [sets_on_accelerator(4 * sets * 80_000) for sets in (24, 13, 12, 9, 2, 0.5)] == [13, 13, 9, 9, 2, 1]


def test_layers_count_and_weights_do_not():
    memory = 4 * 25 * 80_000
    assert sets_on_accelerator(memory, layers=5) == 7  # a set has 240 kB, so 8 sets fit and 25 sets make 4 chunks
    assert sets_on_accelerator(memory, width=5000) == 25


def test_an_accelerator_that_does_not_report_its_memory_has_the_usual_one():
    assert sets_on_accelerator(None) == 25
