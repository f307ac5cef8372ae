"""One mini-batch: its steps against the formulas, and what does not change its samples."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import on_devices
import pytest
from cake_errors import message_of
from finite_differences import gradient_of
from small_synthesis import SETTINGS, objective_by_formula
from smooth_teacher import SPEC, TEACHER, logits_of

from cake_jax import parallel
from cake_jax.synthesis import SynthesisSettings, Weights, draw_batch, minibatch
from cake_jax.synthesis.priors import Prior
from cake_jax.teachers import Teacher, from_function
from cake_jax.types import DataSpec

KEY = jax.random.key(3)
ONE_STEP = dataclasses.replace(SETTINGS, num_steps=1, schedule="constant")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"weights": Weights(cls=1.0, contr=0.3, tv=1.0, entropy=50.0)},
        {"contrastive": "snn", "weights": Weights(cls=0.5, contr=0.1, tv=0.0, entropy=5.0)},
    ],
    ids=["mse", "entropy", "snn and entropy"],
)
def test_one_step_goes_down_the_objective_of_the_whole_mini_batch(change):
    """The 5 sets lie on 2 devices, of which one has a set of padding."""
    settings = dataclasses.replace(ONE_STEP, **change)
    assert settings.num_sets % parallel.device_count()
    samples, _ = minibatch(KEY, TEACHER, settings, 1)
    start, target = draw_batch(KEY, settings, SPEC, 1)
    sets = start.reshape(5, 3, *SPEC.shape)

    def by_formula(x):
        return objective_by_formula(x, logits_of, target.reshape(5, 3), settings)

    expected = start - 0.05 * gradient_of(by_formula, sets).reshape(start.shape)
    np.testing.assert_array_equal(samples.target, target)
    np.testing.assert_allclose(samples.x, expected, atol=1e-5)
    np.testing.assert_allclose(samples.logits, logits_of(samples.x), atol=1e-5)
    np.testing.assert_array_equal(samples.set_index, np.repeat(np.arange(5, 10), 3))
    np.testing.assert_array_equal(samples.step_size, np.float32(0.05))


@pytest.fixture(scope="module")
def whole():
    return [minibatch(KEY, TEACHER, SETTINGS, batch) for batch in range(3)]


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_chunks_change_only_the_rounding(whole, chunk):
    parts, _ = minibatch(KEY, TEACHER, dataclasses.replace(SETTINGS, sets_per_chunk=chunk), 0)
    np.testing.assert_array_equal(whole[0][0].target, parts.target)
    np.testing.assert_allclose(whole[0][0].x, parts.x, atol=1e-5)


def test_step_sizes_follow_the_schedule(whole):
    for batch, (samples, info) in enumerate(whole):
        assert info.step_size == pytest.approx(SETTINGS.step_size_of(batch))
        np.testing.assert_array_equal(samples.step_size, np.float32(SETTINGS.step_size_of(batch)))
    moved = [np.abs(samples.x - draw_batch(KEY, SETTINGS, SPEC, m)[0]).max() for m, (samples, _) in enumerate(whole)]
    assert moved[0] > 10 * moved[1] > 100 * moved[2] > 0


def test_steps_lower_the_objective_and_close_the_gap():
    weights = Weights(cls=1.0, contr=5.0)
    settings = dataclasses.replace(SETTINGS, num_steps=100, schedule="constant", weights=weights)
    _, start = minibatch(KEY, TEACHER, dataclasses.replace(settings, num_steps=0), 0)
    _, end = minibatch(KEY, TEACHER, settings, 0)
    assert end.cls + 5 * end.contr < 0.7 * (start.cls + 5 * start.contr)
    assert end.logit_gap < end.logit_gap_start
    assert end.logit_gap_start == pytest.approx(start.logit_gap, rel=1e-4)


def test_without_steps_the_samples_are_the_labelled_start():
    samples, info = minibatch(KEY, TEACHER, dataclasses.replace(SETTINGS, num_steps=0), 1)
    start, target = draw_batch(KEY, SETTINGS, SPEC, 1)
    np.testing.assert_array_equal(samples.x, start)
    np.testing.assert_array_equal(samples.target, target)
    np.testing.assert_allclose(samples.logits, logits_of(start), atol=1e-5)
    assert info.logit_gap == pytest.approx(info.logit_gap_start, rel=1e-5)


def test_another_mini_batch_and_another_teacher_compile_nothing():
    traces = []

    def apply(variables, x):
        traces.append(1)
        return x @ variables

    settings = SynthesisSettings(num_batches=4, batch_size=8, num_groups=2, num_steps=3, langevin_temperature=1.0)
    first, second = (
        Teacher(np.random.default_rng(seed).normal(size=(2, 2)).astype(np.float32), apply, DataSpec((2,), 2))
        for seed in range(2)
    )
    minibatch(KEY, first, settings, 0)
    after_one = len(traces)
    assert after_one > 0
    for teacher, batch in ((first, 1), (first, 2), (second, 0), (second, 3)):
        minibatch(KEY, teacher, settings, batch)
    assert len(traces) == after_one


def test_clipped_samples_stay_in_the_valid_range():
    """Each channel has its own bounds in normalised units. Large steps leave the range without the clip."""
    spec = dataclasses.replace(SPEC, mean=(0.5, 0.2), std=(0.5, 0.1), low=0.0, high=1.0)
    low, high = spec.bounds
    settings = dataclasses.replace(SETTINGS, step_size=5.0, schedule="constant")
    teacher = dataclasses.replace(TEACHER, spec=spec)
    free, _ = minibatch(KEY, teacher, settings, 0)
    clipped, _ = minibatch(KEY, teacher, dataclasses.replace(settings, clip=True), 0)
    assert ((free.x < low) | (free.x > high)).any(axis=(0, 1, 2)).all()
    assert ((clipped.x >= low) & (clipped.x <= high)).all()
    for channel in range(2):
        assert {low[channel], high[channel]} <= set(clipped.x[..., channel].ravel())


def half_square(x, teacher, target, mask, settings):
    """An objective whose gradient is x."""
    masked = jnp.where(mask.reshape(-1, 1, 1, 1, 1), x, 0.0)
    return 0.5 * jnp.square(masked).sum(), teacher(x.reshape(-1, *SPEC.shape)).reshape(*target.shape, -1)


@dataclasses.dataclass(frozen=True)
class Doubled(SynthesisSettings):
    def moved(self, key, x):
        return 2 * x


def test_the_objective_sees_moved_samples():
    """The gradient of (2 x)^2 / 2 is 4 x."""
    settings = Doubled(**vars(ONE_STEP))
    samples, _ = minibatch(KEY, TEACHER, settings, 0, objective=half_square)
    start, _ = draw_batch(KEY, settings, SPEC, 0)
    np.testing.assert_allclose(samples.x, (1 - 0.05 * 4) * start, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Drifting(SynthesisSettings):
    def moved(self, key, x):
        return x + jax.random.normal(key)


def test_samples_move_anew_in_each_step_and_set():
    """The gradient of the sum of y^2 / 2 at y = x + d is x + d, so the draws d of each set and step add up in x."""

    def drift(steps):
        settings = Drifting(**{**vars(ONE_STEP), "num_steps": steps, "batch_size": 12})
        samples, _ = minibatch(KEY, TEACHER, settings, 0, objective=half_square)
        start, _ = draw_batch(KEY, settings, SPEC, 0)
        left = samples.x - 0.95**steps * start
        by_set = left.reshape(4, -1)
        np.testing.assert_allclose(by_set, np.broadcast_to(by_set[:, :1], by_set.shape), atol=1e-5)
        return by_set[:, 0] / -0.05

    first = drift(1)
    second = drift(2) - 0.95 * first
    assert len(np.unique(np.round([*first, *second], 4))) == 8


def test_langevin_noise_has_the_stated_size():
    cold = dataclasses.replace(SETTINGS, num_steps=1, batch_size=300, weights=Weights(cls=0.0, contr=0.0))
    still, _ = minibatch(KEY, TEACHER, cold, 0)
    moved, _ = minibatch(KEY, TEACHER, dataclasses.replace(cold, langevin_temperature=2.0), 0)
    noise = moved.x - still.x
    assert abs(noise.var() / (2 * 0.05 * 2.0) - 1) < 4 * np.sqrt(2 / noise.size)
    flat = noise.reshape(len(noise), -1)
    assert len(np.unique(flat[:, 0])) == len(flat), "every sample draws its own noise"


def test_low_precision_changes_the_teachers_arithmetic_only():
    low, _ = minibatch(KEY, TEACHER, dataclasses.replace(ONE_STEP, precision="bf16"), 0)
    high, _ = minibatch(KEY, TEACHER, ONE_STEP, 0)
    assert low.x.dtype == low.logits.dtype == np.float32
    np.testing.assert_allclose(low.logits, high.logits, atol=0.1)
    assert not np.array_equal(low.logits, high.logits)


def test_functions_take_the_place_of_names():
    """The step of x_0 is that of 1/2 x_0, summed over a set, plus that of |x|^2, over 4 samples: 1/2 + x / 2."""
    spec = DataSpec((3,), 4)
    settings = SynthesisSettings(
        num_batches=1,
        batch_size=4,
        num_groups=2,
        num_steps=1,
        step_size=0.5,
        weights=Weights(cls=0.0, contr=1.0, priors=((Prior(lambda x: jnp.square(x).sum(axis=-1)), 1.0),)),
        start=lambda key, groups, spec: jnp.full((groups, *spec.shape), 2.0),
        targets=lambda key, classes, groups: jnp.arange(groups, dtype=jnp.int32) + 2,
        contrastive=lambda logits: logits[..., 0].sum(),
    )
    first_value = from_function(lambda x: jnp.pad(x[:, :1], ((0, 0), (0, 3))), spec)
    samples, _ = minibatch(KEY, first_value, settings, 0)
    np.testing.assert_array_equal(samples.target, [2, 3, 2, 3])
    np.testing.assert_allclose(samples.x, np.tile([2 - 0.5 * 1.5, 2 - 0.5, 2 - 0.5], (4, 1)), rtol=1e-6)


def test_another_objective_is_descended():
    samples, _ = minibatch(KEY, TEACHER, ONE_STEP, 0, objective=half_square)
    start, _ = draw_batch(KEY, ONE_STEP, SPEC, 0)
    np.testing.assert_allclose(samples.x, 0.95 * start, rtol=1e-5)


def test_samples_that_are_not_finite_are_refused():
    blows_up = from_function(
        lambda x: jnp.exp(100 * jnp.square(x)).sum(axis=1, keepdims=True) * jnp.ones(2), DataSpec((2,), 2)
    )
    settings = SynthesisSettings(num_batches=1, batch_size=4, num_groups=2, num_steps=3)
    message = message_of(minibatch, KEY, blows_up, settings, 0)
    assert message.startswith("synthesis: mini-batch 0 is not finite (NaN) at step size 0.1; ")


def test_samples_are_the_same_on_one_two_and_four_devices():
    """Bitwise, if no term couples the sets."""
    two = on_devices.samples()
    for devices in (1, 4):
        command = [sys.executable, on_devices.__file__, str(devices)]
        other = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert other["free"][0] == two["free"][0]
        np.testing.assert_allclose(other["coupled"][1], two["coupled"][1], atol=1e-4)
        assert np.mean(np.equal(other["coupled"][2], two["coupled"][2])) >= 0.99
