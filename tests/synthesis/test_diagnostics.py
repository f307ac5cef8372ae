"""Diagnostics of a mini-batch against their formulas."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_synthesis import SETTINGS, log_softmax, total_variation

from cake_jax.synthesis import Weights, diagnose
from cake_jax.synthesis.diagnostics import logit_gap
from cake_jax.synthesis.priors import Prior
from cake_jax.types import SampleBatch

SQUARE = Prior(lambda x: (x**2).sum(axis=(-3, -2, -1)))


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    x, logits = (rng.normal(size=(15, *shape)).astype(np.float32) for shape in ((4, 4, 2), (5,)))
    target = rng.permuted(np.tile(np.arange(5), (5, 1)), axis=1)[:, :3].reshape(15).astype(np.int32)
    return SampleBatch(x, logits, target, np.full(15, 0.25, np.float32), np.repeat(np.arange(5, dtype=np.int32), 3))


def test_logit_gap_is_the_root_mean_square_over_pairs():
    logits = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert logit_gap(logits) == pytest.approx(np.sqrt(np.mean([25.0, 1.0, 9.0 + 9.0])), rel=1e-6)
    assert logit_gap(jnp.stack([logits, 2 * logits])).shape == (2,)


def test_logit_gap_of_a_single_sample_is_zero():
    assert logit_gap(jnp.array([[3.0, 4.0]])) == 0


def test_diagnostics_follow_the_formulas(samples):
    settings = dataclasses.replace(SETTINGS, weights=Weights(cls=7.0, contr=8.0, tv=2.0, priors=((SQUARE, 3.0),)))
    gap_start = np.array([5.0, 1.0, 4.0, 2.0, 9.0], np.float32)
    info = diagnose(samples, settings, gap_start)
    log_p = log_softmax(samples.logits.astype(np.float64))
    sets, mean_p = samples.logits.reshape(5, 3, 5), np.exp(log_p).mean(axis=0)
    squares = np.square(sets[:, :, None] - sets[:, None])
    assert info.step_size == 0.25
    assert info.cls == pytest.approx(3 * -log_p[np.arange(15), samples.target].mean(), rel=1e-5)
    assert info.contr == pytest.approx(0.5 * 9 * squares.mean(), rel=1e-5)
    square = np.square(samples.x).sum(axis=(1, 2, 3)).mean()
    assert info.prior == pytest.approx(2 * total_variation(samples.x) + 3 * square, rel=1e-5)
    assert info.entropy == pytest.approx((mean_p * np.log10(mean_p)).mean(), rel=1e-5)
    assert info.target_accuracy == pytest.approx(np.mean(samples.logits.argmax(axis=1) == samples.target))
    assert 0.5 < info.class_balance < 1
    assert info.logit_gap_start == 4.0
    gaps = np.sqrt(squares.sum(axis=-1).sum(axis=(1, 2)) / 6)
    assert info.logit_gap == pytest.approx(np.median(gaps), rel=1e-5)


def test_samples_without_steps_start_with_their_final_gap(samples):
    info = diagnose(samples, SETTINGS)
    assert info.logit_gap_start == info.logit_gap > 0


@pytest.mark.parametrize(
    ("classes", "balance"),
    [
        ([0, 1, 2, 3, 4] * 3, 1.0),
        ([2] * 15, 0.0),
        ([0] * 9 + [4] * 6, -(0.6 * np.log(0.6) + 0.4 * np.log(0.4)) / np.log(5)),
    ],
)
def test_class_balance_is_the_entropy_of_the_predicted_classes(samples, classes, balance):
    info = diagnose(samples._replace(logits=np.eye(5, dtype=np.float32)[classes]), SETTINGS)
    assert info.class_balance == pytest.approx(balance, abs=1e-6)


@pytest.mark.parametrize(("classes", "balance"), [([0, 3, 4], 1.0), ([3, 3, 3], 0.0), ([1], 0.0), ([1, 2, 1, 2], 0.5)])
def test_class_balance_of_fewer_samples_than_classes_is_a_share_of_what_they_can_reach(samples, classes, balance):
    few = SampleBatch(*(field[: len(classes)] for field in samples))
    settings = dataclasses.replace(SETTINGS, batch_size=len(classes), num_groups=1)
    info = diagnose(few._replace(logits=np.eye(5, dtype=np.float32)[classes]), settings)
    assert info.class_balance == pytest.approx(balance, abs=1e-6)
