"""Generators: parameters, initial values, and the range and moments of their outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax.losses import total_variation
from cake_jax.models.generators import (
    ImageGenerator,
    VectorGenerator,
    generate as _generate,
    generator,
    logit_normal,
)
from cake_jax.types import DataSpec

KEY = jax.random.key(0)
SPEC = DataSpec((28, 28, 1), 10, mean=(0.13,), std=(0.31,), low=0.0, high=1.0)


def params_of(module, latent_size):
    return jax.jit(module.init)(KEY, jnp.zeros((2, latent_size)))["params"]


generate = jax.jit(_generate, static_argnums=0)


def test_parameter_count():
    dense = 256 * 7 * 7 * 128 + 7 * 7 * 128
    convolutions = 9 * 128 * 128 + 9 * 128 * 64 + 9 * 64 + 1
    batch_norms = 2 * (128 + 128 + 64)
    params = params_of(ImageGenerator(SPEC, (128, 128, 64), spread=0.0), 256)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == dense + convolutions + batch_norms == 1_834_305
    params = params_of(VectorGenerator(DataSpec((2,), 2), (10, 20)), 5)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 5 * 10 + 10 + 10 * 20 + 20 + 20 * 2 + 2


def test_initial_values_are_those_of_ideal():
    params = params_of(ImageGenerator(SPEC, (128, 128, 64)), 256)
    kernels = [params["Dense_0"]["kernel"], params["kernel_0"], params["kernel_1"], params["Conv_0"]["kernel"]]
    scales = [layer["scale"] for name, layer in params.items() if name.startswith("BatchNorm")]
    assert len(scales) == 3
    for mean, leaves in ((0.0, kernels), (1.0, scales)):
        for leaf in leaves:
            assert abs(leaf.mean() - mean) < 4 * 0.02 / np.sqrt(leaf.size)
            assert abs(leaf.std() / 0.02 - 1) < 4 / np.sqrt(2 * leaf.size)
    assert not any(np.any(layer["bias"]) for layer in params.values() if isinstance(layer, dict) and "bias" in layer)


@pytest.mark.parametrize("shape", [(8, 8, 1), (30, 30, 3), (5, 9, 3), (4,)])
def test_outputs_fill_the_pixel_range_and_stay_inside(shape):
    channels = shape[-1]
    spec = DataSpec(shape, 3, tuple(range(channels)), tuple(range(1, channels + 1)), low=-10.0, high=20.0)
    module = generator(spec, spread=30.0)
    x = generate(module, params_of(module, 16), jax.random.normal(KEY, (64, 16)))
    assert x.shape == (64, *shape)
    low, high = spec.bounds
    assert (x >= low - 1e-5).all()
    assert (x <= high + 1e-5).all()
    np.testing.assert_allclose(x.min(axis=tuple(range(x.ndim - 1))), low, atol=0.05)
    np.testing.assert_allclose(x.max(axis=tuple(range(x.ndim - 1))), high, atol=0.05)


def test_outputs_without_bounds_stay_within_three_standard_deviations():
    module = generator(DataSpec((2,), 2, mean=(5.0,), std=(2.0,), low=4.0), spread=30.0)
    x = generate(module, params_of(module, 16), jax.random.normal(KEY, (64, 16)))
    np.testing.assert_allclose([x.min(), x.max()], [-0.5, 3.0], atol=1e-3)


@pytest.mark.parametrize("spec", [SPEC, DataSpec((2,), 2)], ids=["image", "vector"])
def test_spread_is_the_standard_deviation_before_the_sigmoid(spec):
    low, high = spec.bounds if spec.is_image else (-3.0, 3.0)
    z = jax.random.normal(KEY, (64, 16))
    before = {}
    for spread in (0.0, 1.0, 2.0):
        module = generator(spec, spread=spread)
        share = (generate(module, params_of(module, 16), z) - low) / (high - low)
        before[spread] = np.log(share / (1 - share)).std(axis=tuple(range(share.ndim - 1)))
    np.testing.assert_allclose(before[1.0], 1.0, rtol=1e-3)
    np.testing.assert_allclose(before[2.0], 2.0, rtol=1e-3)
    assert (before[0.0] < 0.9).all()


def test_batch_norm_uses_the_batch():
    module = generator(SPEC)
    params, z = params_of(module, 16), jax.random.normal(KEY, (8, 16))
    assert not np.allclose(generate(module, params, z)[:4], generate(module, params, z[:4]), atol=1e-3)


COLOUR = DataSpec((16, 12, 3), 10, mean=(0.2, 0.5, 0.7), std=(0.2, 0.25, 0.1), low=0.0, high=1.0)


@pytest.mark.parametrize("spec", [SPEC, COLOUR], ids=["grey", "colour"])
def test_moments_of_each_image_are_those_of_the_specification(spec):
    """With initial weights, pixels before the sigmoid are nearly normal. So the moments are met approximately."""
    module = generator(spec, moments=True)
    pixels = spec.denormalize(generate(module, params_of(module, 64), jax.random.normal(KEY, (64, 64))))
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)).mean(axis=0), spec.mean, atol=0.02)
    np.testing.assert_allclose(pixels.std(axis=(1, 2)).mean(axis=0), spec.std, rtol=0.15)
    assert (pixels.mean(axis=(1, 2)).std(axis=0) < 0.03).all()


def moments_of(scale, shift):
    values = 1 / (1 + np.exp(-(scale * np.random.default_rng(0).normal(size=200_000) + shift)))
    return values.mean(), values.std()


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.2), (0.13, 0.31), (0.9, 0.05)])
def test_logit_normal_has_the_requested_moments(mean, std):
    """NumPy's float32 must not lead to a fit in single precision, which fails."""
    for kind in (float, np.float32):
        np.testing.assert_allclose(moments_of(*logit_normal(kind(mean), kind(std))), [mean, std], atol=3e-3)


def test_logit_normal_limits_the_standard_deviation():
    """Pixels that are half black and half white have a standard deviation of 0.5. The limit is 95 % of it."""
    np.testing.assert_allclose(moments_of(*logit_normal(0.5, 10.0)), [0.5, 0.475], atol=3e-3)


def test_blur_makes_images_smoother_and_keeps_their_moments():
    z = jax.random.normal(KEY, (64, 64))
    smoothness, deviations = [], []
    for blur in (0.0, 1.0, 2.0):
        module = generator(SPEC, moments=True, blur=blur)
        x = generate(module, params_of(module, 64), z)
        smoothness.append(total_variation(x).mean())
        deviations.append(x.std())
    assert smoothness[0] > 1.3 * smoothness[1] > 1.3**2 * smoothness[2]
    np.testing.assert_allclose(deviations, deviations[0], rtol=0.1)
