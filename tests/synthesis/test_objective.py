"""The objective of each device's share against its formulas: values, and gradients by finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_differences import gradient_of
from small_synthesis import objective_by_formula
from smooth_teacher import SPEC, TEACHER, logits_of

from cake_jax import parallel
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.synthesis.objective import batch_mean, flat_samples, objective
from cake_jax.synthesis.priors import Prior
from cake_jax.teachers import Teacher

SQUARE = Prior(lambda x: (x**2).sum(axis=(-3, -2, -1)))
CUBE = Prior(lambda x: (x**3).mean(axis=(-3, -2, -1)))
# Three sets, of which the last one only pads the chunk.
SETTINGS = SynthesisSettings(batch_size=6, num_groups=3)
MASK = jnp.array([True, True, False])


def spread_of_one_class(logits):
    """A contrastive function of one set's logits `[G, K]`, in JAX and NumPy."""
    return ((logits[:, 0] - logits[:, 0].mean()) ** 2).sum()


def on_one_device(function):
    """A function of one chunk. Terms that couple the sets reduce over an axis of one device."""
    return lambda *arguments: jax.tree.map(
        lambda leaf: leaf[0], jax.vmap(function, axis_name=parallel.AXIS)(*(a[None] for a in arguments))
    )


@pytest.fixture(scope="module")
def chunk():
    """Three sets of x `[3, 3, 4, 4, 2]`, and their target classes `[3, 3]`. Each class has a mate."""
    x = np.random.default_rng(0).normal(size=(3, 3, *SPEC.shape)).astype(np.float32)
    return x, np.array([[0, 1, 2], [2, 0, 1], [4, 3, 0]])


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": Weights(cls=2.0, contr=0.0)},
        {"weights": Weights(cls=0.0, contr=0.7)},
        {"weights": Weights(cls=0.0, contr=0.0, tv=3.0)},
        {"weights": Weights(cls=0.0, contr=0.0, entropy=20.0)},
        {"weights": Weights(cls=0.0, contr=2.0), "contrastive": "snn", "snn_temperature": 5.0},
        {"weights": Weights(cls=0.0, contr=0.4), "contrastive": spread_of_one_class},
        {"weights": Weights(cls=0.0, contr=0.0, priors=((SQUARE, 0.3), (CUBE, -0.6)))},
        {
            "weights": Weights(cls=0.5, contr=0.3, tv=1.5, entropy=9.0, priors=((SQUARE, 0.1),)),
            "contrastive": "snn",
        },
    ],
    ids=["cls", "mse", "tv", "entropy", "snn", "a contrastive function", "priors", "all"],
)
def test_values_and_gradients_follow_the_formulas(chunk, changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    x, target = chunk

    def loss(x, target, mask):
        return objective(x, TEACHER, target, mask, settings)

    both = jax.jit(on_one_device(jax.value_and_grad(loss, has_aux=True)))
    (value, logits), gradient = both(x, target, MASK)

    def by_formula(x):
        return objective_by_formula(x, logits_of, target[:2], settings)

    assert float(value) == pytest.approx(by_formula(x[:2].astype(np.float64)), rel=1e-5)
    np.testing.assert_allclose(gradient[:2], gradient_of(by_formula, x[:2]), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(gradient[2], 0)
    np.testing.assert_allclose(logits.reshape(9, 5), logits_of(x.reshape(9, *SPEC.shape)), atol=1e-5)


@pytest.mark.parametrize(("target", "has_mates"), [([[0, 1], [2, 3]], False), ([[0, 1], [0, 1]], True)])
def test_snn_is_left_out_only_without_mates(chunk, target, has_mates):
    """Samples of two classes with mates are so far apart that the loss that snn divides by is 0 in both cases."""
    settings = dataclasses.replace(SETTINGS, batch_size=4, num_groups=2, contrastive="snn", weights=Weights(cls=2.0))
    without = dataclasses.replace(settings, weights=Weights(cls=2.0, contr=0.0))
    x = np.stack([chunk[0][0, :2]] * 2) * np.float32(1e3)

    def of(settings):
        def loss(x, target, mask):
            return objective(x, TEACHER, target, mask, settings)

        return jax.jit(on_one_device(jax.value_and_grad(loss, has_aux=True)))(x, np.array(target), MASK[:2])

    found, bare = of(settings), of(without)
    if has_mates:
        assert not np.isfinite(found[0][0])
    else:
        jax.tree.map(np.testing.assert_array_equal, found, bare)


def test_batch_mean_leaves_out_padding():
    values = jnp.arange(18.0).reshape(3, 3, 2)
    mean = on_one_device(lambda values: batch_mean(values, MASK, SETTINGS))(values)
    np.testing.assert_allclose(mean, values[:2].reshape(6, 2).mean(axis=0))


def test_batch_mean_differentiates_the_devices_own_part_alone():
    """Two devices with one set each: the mean is that of both, and each device's gradient that of its own set."""
    settings = SynthesisSettings(batch_size=6, num_groups=3)
    values = jnp.arange(6.0).reshape(2, 1, 3)

    def squared_mean(values):
        return batch_mean(values, jnp.array([True]), settings) ** 2

    both = jax.vmap(jax.value_and_grad(squared_mean), axis_name=parallel.AXIS)
    value, gradient = both(values)
    np.testing.assert_allclose(value, [6.25, 6.25])
    np.testing.assert_allclose(gradient, np.full((2, 1, 3), 2 * 2.5 / 6), rtol=1e-6)


def test_samples_take_the_precision_of_the_teachers_variables():
    x = jnp.zeros((2, 3, 4, 4, 2))
    low = Teacher({"steps": np.int32(3), "weights": jnp.zeros(3, jnp.bfloat16)}, None, SPEC)
    assert flat_samples(low, x).dtype == jnp.bfloat16
    without_variables = Teacher((), None, SPEC)
    assert flat_samples(without_variables, x).dtype == jnp.float32
    assert flat_samples(without_variables, x).shape == (6, 4, 4, 2)
