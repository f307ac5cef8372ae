"""Labels, and the losses that take them."""

import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from small_training import SETTINGS, history

from cake_jax.training import DistillationLoss, Labels, classification_loss, from_logits

STUDENT = jnp.array([[0.3, -1.0, 2.0], [1.0, 0.0, -1.0]])
TEACHER = np.array([[0.0, 3.0, 1.0], [2.0, 2.5, -1.0]], np.float32)
CLASSES = np.array([2, 0], np.int32)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_from_logits_takes_the_argmax_as_the_class():
    labels = from_logits(TEACHER)
    assert labels.classes.tolist() == [1, 1]
    assert labels.classes.dtype == np.int32
    assert labels.logits is TEACHER


def test_labels_have_no_logits_by_default():
    assert Labels(CLASSES).logits is None


@pytest.mark.parametrize("logits", [None, TEACHER], ids=["classes alone", "with logits"])
def test_classification_loss_uses_the_classes(logits):
    expected = -log_softmax(STUDENT)[[0, 1], CLASSES]
    np.testing.assert_allclose(classification_loss(STUDENT, Labels(CLASSES, logits)), expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
def test_distillation_loss_by_hand(temperature, hard_weight):
    """The hard label is the class, which need not be the argmax of the logits."""
    soft = -(np.exp(log_softmax(TEACHER / temperature)) * log_softmax(STUDENT / temperature)).sum(axis=-1)
    hard = -log_softmax(STUDENT)[[0, 1], CLASSES]
    expected = hard_weight * hard + (1 - hard_weight) * temperature**2 * soft
    loss = DistillationLoss(temperature, hard_weight)
    np.testing.assert_allclose(loss(STUDENT, Labels(CLASSES, TEACHER)), expected, rtol=1e-5)


def test_distillation_loss_of_hard_weight_1_depends_on_the_classes_alone():
    hard, soft = DistillationLoss(3.0, hard_weight=1.0), DistillationLoss(3.0)
    weak, strong = Labels(CLASSES, TEACHER), Labels(CLASSES, 50 * TEACHER)
    np.testing.assert_array_equal(hard(STUDENT, weak), hard(STUDENT, strong))
    assert (soft(STUDENT, weak) != soft(STUDENT, strong)).all()


def test_equal_losses_share_a_compiled_program(module, points):
    assert DistillationLoss(2.0) == DistillationLoss(2.0)
    assert hash(DistillationLoss(2.0)) == hash(DistillationLoss(2.0))
    traced = []

    class Counted(DistillationLoss):
        def __call__(self, logits, labels):
            traced.append(logits)
            return super().__call__(logits, labels)

    x, labels = points
    labels = labels._replace(logits=np.zeros((205, 3), np.float32))
    counts = []
    for loss in (Counted(2.0), Counted(2.0), Counted(3.0)):
        history(module, x, labels, SETTINGS, loss=loss, steps_per_call=8)
        counts.append(len([logits for logits in traced if logits.shape == (10, 3)]))
    assert counts[1] == counts[0] < counts[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "student.temperature: 0.0 must be above 0"),
        ({"hard_weight": 2.0}, "student.hard_weight: 2.0 is not in [0, 1]"),
        ({"hard_weight": -0.1}, "student.hard_weight: -0.1 is not in [0, 1]"),
    ],
)
def test_distillation_loss_refuses_values_out_of_range(fields, message):
    assert message_of(DistillationLoss, **fields) == message
