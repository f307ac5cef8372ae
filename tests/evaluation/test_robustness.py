"""Accuracy under attacks, for a linear teacher whose nearest wrong inputs are known, and under corruptions."""

import jax
import numpy as np
import pytest

from cake_jax.evaluation import robustness as robust
from cake_jax.teachers import from_function
from cake_jax.types import CakeError, DataSpec

pytest.importorskip("foolbox")
# Two features between 0 and 10, and a model that compares them: a change by epsilon moves the difference by 2 epsilon.
SPEC = DataSpec((2,), 2, mean=(4.0,), std=(2.0,), low=0.0, high=10.0)
DIFFERENCES = np.array([0.5, 1.5, 2.5, 3.5])


def linear(sign=1.0):
    def logits(x):
        difference = sign * (x[:, 0] - x[:, 1]) * SPEC.std[0]
        return jax.numpy.stack([difference, -difference], axis=1)

    return from_function(logits, SPEC)


def inputs():
    pixels = np.stack([5 + DIFFERENCES / 2, 5 - DIFFERENCES / 2], axis=1)
    return SPEC.normalize(pixels), np.zeros(4, int)


def test_an_attack_fools_a_linear_model_where_its_margin_ends():
    epsilons = [0.05, 0.1, 0.15]  # 1, 2 and 3 units of the difference
    found = robust.robustness({"teacher": linear()}, *inputs(), epsilons, jax.random.key(0))["teacher"]
    for attack in ("FGSM", "PGD"):
        assert found["attacks"][attack] == [0.75, 0.5, 0.25]
    assert found["accuracy"] == {"clean": 1.0}


def test_attacks_transfer_to_an_equal_model_and_not_to_the_opposite_one():
    models = {"teacher": linear(), "equal": linear(), "opposite": linear(-1.0)}
    found = robust.robustness(models, *inputs(), [0.15], jax.random.key(0))
    assert found["teacher"]["transfer"] == {"equal": [0.25], "opposite": [0.75]}
    assert found["equal"]["agreement"] == {"clean": 1.0}
    assert found["opposite"]["agreement"] == {"clean": 0.0}
    assert found["opposite"]["attacks"]["PGD"] == [0.0]


def test_corruptions_keep_the_range_and_change_the_images():
    spec = DataSpec((8, 8, 1), 2, mean=(100.0,), std=(50.0,), low=0.0, high=255.0)
    rng = np.random.default_rng(0)
    x = spec.normalize(rng.uniform(0, 255, (3, 8, 8, 1)))
    changed = robust.corruptions(jax.random.key(0), x, spec)
    assert [*changed] == [*robust.CORRUPTIONS]
    for name, inputs in changed.items():
        pixels = inputs * 50 + 100
        assert pixels.min() >= -0.01, name
        assert pixels.max() <= 255.01, name
        assert (np.abs(inputs - x).max(axis=(1, 2, 3)) > 0.1).all(), name
    dark = changed["dark"] * 50 + 100
    np.testing.assert_allclose(dark, 0.28 * (x * 50 + 100), atol=0.01)


def test_data_without_a_range_of_pixels_are_refused():
    teacher = from_function(lambda x: x, DataSpec((2,), 2))
    with pytest.raises(CakeError, match="no lowest and highest pixel value"):
        robust.robustness(
            {"teacher": teacher}, np.zeros((1, 2), np.float32), np.zeros(1, int), [0.1], jax.random.key(0)
        )
