"""`adversarial`: the disagreement that its generator raises, and the balance of the classes."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_methods import KEY, PLANE, WAVE, prepared

from cake_jax.methods.adversarial import DISAGREEMENTS, init, train_generator
from cake_jax.methods.shared import generator_training

# Without `spread`, the samples can all go to the place of the largest disagreement.
FIELDS = {"num_steps": 60, "step_size": 1e-2, "spread": 0.0}


@pytest.mark.parametrize("disagreement", ["kl", "l1"])
def test_steps_raise_the_disagreement(student, disagreement):
    settings = prepared("adversarial", **FIELDS, balance=0.0, disagreement=disagreement)
    _, values = train_generator(KEY, init(KEY, PLANE, settings, None), WAVE, student, settings)
    assert values[-10:].mean() > 1.2 * values[:3].mean()


def test_disagreements_follow_the_papers():
    """p and q are the probabilities of class 0: the teacher's and the student's."""
    student, teacher = jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 0.0]])
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(2.0))
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert float(DISAGREEMENTS["kl"](student, teacher)[0]) == pytest.approx(kl, rel=1e-5)
    assert float(DISAGREEMENTS["l1"](student, teacher)[0]) == 1.5


def test_balance_keeps_all_classes_among_the_samples(student):
    shares = {}
    for balance in (0.0, 100.0):
        settings = prepared("adversarial", **{**FIELDS, "num_steps": 150}, balance=balance)
        state, _ = train_generator(KEY, init(KEY, PLANE, settings, None), WAVE, student, settings)
        x = generator_training.draw(KEY, settings, PLANE, state.params)
        shares[balance] = float((WAVE.predict(x).argmax(axis=1) == 0).mean())
    assert min(shares[0.0], 1 - shares[0.0]) < 0.1
    assert 0.25 < shares[100.0] < 0.75
