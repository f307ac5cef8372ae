"""`generative`: classes of its samples, the contrastive term, and the repulsion of sets."""

import numpy as np
import pytest
from cake_errors import message_of
from small_methods import KEY, PLANE, WAVE, prepared
from smooth_teacher import SPEC as IMAGES

from cake_jax.methods.generative import init, make_round, repulsion


def first_round(**fields):
    settings = prepared("generative", step_size=1e-2, **fields)
    return settings, make_round(KEY, init(KEY, PLANE, settings, None), WAVE, None, settings, 0)


def test_samples_reach_their_target_classes():
    settings, first = first_round(num_steps=600, contrast=False)
    assert first.info.target_accuracy > 0.95
    np.testing.assert_array_equal(np.bincount(first.samples.target), [20, 20])
    later = make_round(KEY, first.state, WAVE, None, settings, 1)
    assert later.info.target_accuracy > 0.95
    assert not np.allclose(later.samples.x, first.samples.x, atol=1e-3)


def test_the_contrastive_term_pulls_the_logits_of_a_set_together():
    gaps = [first_round(num_steps=300, contrast=contrast, repel=0.0)[1].info.logit_gap for contrast in (False, True)]
    assert gaps[1] < 0.5 * gaps[0]


def test_repulsion_is_the_mean_over_pairs_of_different_sets():
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    pairs = [
        np.exp(-np.square(x[s, i] - x[t, j]).sum() / 8)
        for s in range(3)
        for t in range(3)
        for i in range(2)
        for j in range(2)
        if s != t
    ]
    assert float(repulsion(x)) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert float(repulsion(np.ones((3, 2, 4)))) == pytest.approx(1.0)


@pytest.mark.parametrize(("spec", "num_steps"), [(PLANE, 15_000), (IMAGES, 500)], ids=["vectors", "images"])
def test_the_number_of_steps_depends_on_the_kind_of_input(spec, num_steps):
    assert prepared("generative", spec, num_steps=0).num_steps == num_steps
    assert prepared("generative", spec, num_steps=7).num_steps == 7


def test_terms_that_couple_sets_are_refused():
    message = message_of(prepared, "generative", contrastive="snn")
    assert message.startswith("synthesis.weights.entropy: generative takes neither")
