"""Layers and their operations: convolution, pool and product, against `flax.linen` and `lax`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from random_variables import random, variable_shapes, variables_like

from cake_jax.models import layers, operations

NHWC = ("NHWC", "HWIO", "NHWC")

CONVOLUTIONS = [
    # Image, side of the kernel, features, strides, padding. First the cases that are products of rows on a CPU.
    ((9, 8, 1), 3, 4, 1, 0),
    ((9, 12, 1), 3, 16, 1, 0),
    ((9, 8, 3), 5, 6, 1, 0),
    ((9, 8, 2), 4, 3, 1, 2),
    ((9, 8, 1), 3, 4, 1, 1),
    ((5, 5, 40), 5, 7, 1, 0),
    ((6, 4, 40), 3, 7, 1, 0),
    ((9, 8, 4), 1, 7, 1, 0),
    # Cases with the custom gradient.
    ((9, 8, 32), 3, 8, 1, 0),
    ((9, 8, 32), 4, 16, 1, 0),
    ((12, 9, 32), 4, 16, 1, 0),
    ((9, 8, 16), 3, 16, 1, 1),
    ((9, 8, 16), 2, 16, 1, 4),
    ((9, 8, 16), 1, 16, 1, 0),
    ((9, 8, 16), 3, 16, 2, 1),
    ((8, 11, 16), 4, 16, 3, 2),
    ((8, 9, 16), 1, 16, 2, 0),
    ((9, 8, 2), 3, 4, 2, 0),
    ((11, 14, 3), 7, 16, 2, 3),
]


def assert_same_with_gradients(function, reference, *arguments):
    """Checks that both have equal values, and equal gradients for one random cotangent."""
    shape = jax.eval_shape(reference, *arguments)
    assert jax.eval_shape(function, *arguments) == shape
    cotangent = random(*shape.shape, seed=7)

    @jax.jit
    def both(*arguments):
        value, pull = jax.vjp(function, *arguments)
        expected, pull_expected = jax.vjp(reference, *arguments)
        return (value, *pull(cotangent)), (expected, *pull_expected(cotangent))

    for one, other in zip(*map(jax.tree.leaves, both(*arguments)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("image", "size", "features", "strides", "padding"), CONVOLUTIONS)
def test_convolution_equals_lax(image, size, features, strides, padding):
    x, kernel = random(2, *image), random(size, size, image[-1], features, seed=1)
    assert_same_with_gradients(
        lambda x, kernel: operations.convolution(x, kernel, strides, padding),
        lambda x, kernel: lax.conv_general_dilated(
            x, kernel, (strides, strides), [(padding, padding)] * 2, dimension_numbers=NHWC
        ),
        x,
        kernel,
    )


@pytest.mark.parametrize(("image", "size", "features", "strides", "padding"), CONVOLUTIONS)
def test_convolution_in_bf16_rounds_only_its_arguments_and_results(image, size, features, strides, padding):
    """There are sums of up to 1,600 products. Summed in bf16, which has 8 bits, they would be wrong by tenths."""
    x, kernel = (
        random(*shape, seed=seed).astype(jnp.bfloat16)
        for seed, shape in enumerate([(6, *image), (size, size, image[-1], features)])
    )

    def reference(x, kernel):
        x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
        return lax.conv_general_dilated(x, kernel, (strides, strides), [(padding, padding)] * 2, dimension_numbers=NHWC)

    y, pull = jax.vjp(lambda x, kernel: operations.convolution(x, kernel, strides, padding), x, kernel)
    expected, pull_expected = jax.vjp(reference, x, kernel)
    cotangent = random(*y.shape, seed=7).astype(jnp.bfloat16)
    ours, originals = (y, *pull(cotangent)), (expected, *pull_expected(cotangent.astype(jnp.float32)))
    for one, other in zip(ours, originals, strict=True):
        assert one.dtype == jnp.bfloat16
        # The gradient of overlapping rows is a sum of up to five terms, each rounded to 8 bits.
        np.testing.assert_allclose(
            one.astype(np.float32), other.astype(np.float32), rtol=2**-7, atol=0.02 * abs(other).max()
        )


def test_product_of_bf16_is_summed_in_float32():
    """In bf16, 1 + 2^-9 is 1, so the 512 small terms would be lost. Their sum is 1."""
    terms = np.array([1.0] + [2.0**-9] * 512, np.float32)
    a, b = jnp.asarray(terms, jnp.bfloat16)[None], jnp.ones((513, 1), jnp.bfloat16)
    value, pull = jax.vjp(operations.product, a, b)
    assert value.dtype == jnp.bfloat16
    assert value == 2.0
    np.testing.assert_array_equal(pull(jnp.ones((1, 1), jnp.bfloat16))[1][:, 0], terms)


def test_dense_equals_flax():
    x = random(5, 7)
    variables = layers.Dense(3).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, nn.Dense(3).init(jax.random.key(0), x))
    assert_same_with_gradients(layers.Dense(3).apply, nn.Dense(3).apply, variables, x)


class Two(nn.Module):
    """Two convolutions, each with a ReLU: those of `layers`, or those of Flax with a max-pool if `pool` is set."""

    conv: type
    features: int
    options: tuple

    @nn.compact
    def __call__(self, x):
        options = dict(self.options)
        if self.conv is layers.Conv:
            x = nn.relu(layers.Conv(self.features, 3, **options)(x))
            return nn.relu(layers.Conv(4, 2)(x))
        pool = options.pop("pool", False)
        x = nn.relu(nn.Conv(self.features, (3, 3), **{"padding": 0, **options})(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2)) if pool else x
        return nn.relu(nn.Conv(4, (2, 2), padding=0)(x))


OPTIONS = [
    {},
    {"padding": 1, "use_bias": False},
    {"strides": 2, "padding": 1},
    {"pool": True},
    {"pool": True, "padding": 2},
    {"pool": True, "strides": 2, "use_bias": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("features", [6, 60])
def test_conv_equals_flax(options, features):
    x, options = random(2, 12, 11, 3), tuple(options.items())
    ours, original = Two(layers.Conv, features, options), Two(nn.Conv, features, options)
    shapes = variable_shapes(ours, x.shape[1:])
    assert shapes == variable_shapes(original, x.shape[1:])
    assert_same_with_gradients(ours.apply, original.apply, variables_like(shapes), x)


def test_conv_has_the_initial_values_of_flax():
    variables, expected = (
        conv.init(jax.random.key(3), random(1, 9, 9, 2)) for conv in (layers.Conv(4, 3), nn.Conv(4, (3, 3)))
    )
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_conv_promotes_types_like_flax():
    x = random(2, 9, 9, 2).astype(jnp.bfloat16)
    for conv in (layers.Conv(6, 3, pool=True), layers.Conv(90, 3), nn.Conv(6, (3, 3))):
        variables = conv.init(jax.random.key(0), x)
        assert conv.apply(variables, x).dtype == jnp.float32
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
        assert conv.apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 7, 5, 2)])
def test_max_pool_equals_flax(shape):
    """The second shape has an odd last row and column, which both drop."""
    x = random(*shape)
    weights = random(shape[0], shape[1] // 2, shape[2] // 2, shape[3])

    def with_gradient(pool):
        return jax.value_and_grad(lambda x: (weights * pool(x)).sum())(x)

    value, gradient = with_gradient(operations.max_pool)
    expected, expected_gradient = with_gradient(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("channels", [2, 40])
def test_convolution_with_a_pool_equals_one_after_the_other(channels):
    """Nine columns: the pool drops the last one. 2 channels are two products of row parts on a CPU, 40 are not."""
    assert_same_with_gradients(
        lambda x, kernel: operations.convolution(x, kernel, 1, 0, pool=True),
        lambda x, kernel: operations.max_pool(operations.convolution(x, kernel, 1, 0)),
        random(2, 7, 11, channels),
        random(3, 3, channels, 8, seed=1),
    )


def test_upsampled_convolution_equals_doubling_and_then_convolving():
    x, kernel = random(3, 4, 5, 6), random(3, 3, 6, 7, seed=1)

    def reference(x, kernel):
        doubled = x.repeat(2, axis=1).repeat(2, axis=2)
        return lax.conv_general_dilated(doubled, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    assert_same_with_gradients(operations.upsampled_convolution, reference, x, kernel)


@pytest.mark.parametrize("features", [1, 80])
def test_pool_gradient_has_the_same_sum_at_ties(features):
    conv = layers.Conv(features, 1, use_bias=False, pool=True)
    variables = {"params": {"kernel": jnp.ones((1, 1, 2, features))}}
    gradient = jax.grad(lambda x: conv.apply(variables, x).sum())(jnp.zeros((1, 4, 4, 2)))
    assert gradient.sum() == 4 * 2 * features
    assert (np.asarray(gradient) >= 0).all()
