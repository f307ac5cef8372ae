"""Schedules, at points whose values follow from the definition."""

import math

import numpy as np
import pytest

from cake_jax import schedules


@pytest.mark.parametrize("schedule", schedules.SYNTHESIS_SCHEDULES)
@pytest.mark.parametrize(("base", "decay"), [(0.1, 4.0), (10.0, 2.5), (1.0, 0.0)])
@pytest.mark.parametrize("num_batches", [1, 4, 100])
def test_step_size_follows_its_definition(schedule, base, decay, num_batches):
    s = math.log10(base)
    exponents = {
        "constant": lambda m: s,
        "linear": lambda m: s - decay * m / num_batches,
        "cosine": lambda m: s - decay + decay / 2 * (1 + math.cos(math.pi * m / num_batches)),
    }
    for m in {0, num_batches // 2, num_batches - 1}:
        eta = schedules.step_size(m, num_batches, base=base, decay_magnitude=decay, schedule=schedule)
        assert math.log10(eta) == pytest.approx(exponents[schedule](m), abs=1e-6)


@pytest.mark.parametrize("schedule", schedules.SYNTHESIS_SCHEDULES)
def test_first_step_size_is_the_base(schedule):
    assert schedules.step_size(0, 50, base=0.3, schedule=schedule) == pytest.approx(0.3)


def test_step_size_falls_by_the_decay_magnitude():
    # At half time, half of the decades are done in both schedules. The default is linear with four decades.
    for schedule in ("linear", "cosine"):
        eta = [schedules.step_size(m, 100, base=1.0, decay_magnitude=6.0, schedule=schedule) for m in range(100)]
        assert eta[50] == pytest.approx(1e-3)
        assert (np.diff(eta) < 0).all()
        assert 1e-6 < eta[99] < 1.3e-6
    assert schedules.step_size(5, 10, base=1.0) == pytest.approx(1e-2)
    assert schedules.step_size(75, 100, base=1.0) == pytest.approx(1e-3)


@pytest.mark.parametrize("peak", [0.1, 2.0])
def test_one_cycle_follows_its_definition(peak):
    rate = schedules.learning_rate(peak, 1000, schedule="one_cycle")
    assert float(rate(0)) == pytest.approx(peak / 25, rel=1e-4)
    assert float(rate(150)) == pytest.approx((peak + peak / 25) / 2, rel=1e-4)
    assert float(rate(300)) == pytest.approx(peak, rel=1e-4)
    assert float(rate(650)) == pytest.approx((peak + peak / 250_000) / 2, rel=1e-4)
    assert float(rate(1000)) == pytest.approx(peak / 250_000, rel=1e-2)
    values = np.array([float(rate(t)) for t in range(0, 1001, 25)])
    assert values.argmax() == 12
    assert (np.diff(values[:13]) > 0).all()
    assert (np.diff(values[12:]) < 0).all()


def test_multi_step_follows_its_definition():
    rate = schedules.learning_rate(0.5, 100, schedule="multi_step")
    for first, last, factor in [(0, 65, 1.0), (66, 79, 0.1), (80, 99, 0.01)]:
        for t in (first, (first + last) // 2, last):
            assert float(rate(t)) == pytest.approx(0.5 * factor, rel=1e-5)


def test_constant_rate_is_the_peak():
    rate = schedules.learning_rate(0.5, 100, schedule="constant")
    assert [float(rate(t)) for t in (0, 50, 99)] == [0.5] * 3


def test_one_cycle_is_the_default():
    default, named = schedules.learning_rate(1.0, 40), schedules.learning_rate(1.0, 40, schedule="one_cycle")
    assert [float(default(t)) for t in range(40)] == [float(named(t)) for t in range(40)]


@pytest.mark.parametrize("schedule", schedules.TRAINING_SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_short_training_has_finite_rates(schedule, num_steps):
    rate = schedules.learning_rate(0.1, num_steps, schedule=schedule)
    values = np.array([float(rate(t)) for t in range(num_steps)])
    assert np.isfinite(values).all()
    assert (values > 0).all()
    assert (values <= 0.1 + 1e-6).all()
