"""Labels and inputs of users: what is accepted, and the messages for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax.arrays import as_classes, as_inputs
from cake_jax.models import create
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec, SampleBatch

CLASSES = np.array([2, 0, 1, 2])
IMAGES = DataSpec((4, 5, 3), 3, (0.5,), (0.25,), 0.0, 1.0)


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.tolist(),
        CLASSES.astype(np.uint8)[:, None],
        CLASSES.astype(np.float64),
        np.eye(3)[CLASSES],
        np.eye(3)[CLASSES].astype(bool),
    ],
    ids=["array", "list", "column", "floats", "one-hot", "one-hot of booleans"],
)
def test_labels_in_every_certain_form(labels):
    classes = as_classes(labels, 3, 4)
    assert classes.dtype == np.int32
    np.testing.assert_array_equal(classes, CLASSES)


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_classes(torch.tensor(CLASSES), 3, 4), CLASSES)
    x = torch.zeros((2, 4, 5, 3), requires_grad=True)
    np.testing.assert_array_equal(as_inputs(x, IMAGES), np.zeros((2, 4, 5, 3)))
    half = torch.linspace(-2, 2, 120, dtype=torch.bfloat16).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(as_inputs(half, IMAGES), half.float().numpy())


def test_arrays_of_bfloat16():
    x = jnp.linspace(-2, 2, 120, dtype=jnp.bfloat16).reshape(2, 4, 5, 3)
    for array in (x, np.asarray(x)):
        np.testing.assert_array_equal(as_inputs(array, IMAGES), np.asarray(x, np.float32))
    np.testing.assert_array_equal(as_classes(jnp.asarray(CLASSES, jnp.bfloat16), 3, 4), CLASSES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (CLASSES + 1, "y: labels are from 1 to 3, but 3 classes are 0 to 2; subtract 1"),
        (CLASSES - 1, "y: labels are from -1 to 1, but 3 classes are 0 to 2"),
        ([0, 1, 7, 1], "y: labels are from 0 to 7, but 3 classes are 0 to 2"),
        (CLASSES + 0.5, "y: labels must be whole numbers from 0 to 2"),
        (["a", "b", "c", "a"], "y: a list holds other things than numbers"),
        ([[0], [1, 2], [1], [2]], "y: a list is not an array of numbers of equal shapes"),
        (CLASSES[:3], "y: labels of shape (3,) do not fit 4 inputs of 3 classes"),
        (np.full((4, 3), 1 / 3), "y: labels of shape (4, 3) do not fit 4 inputs of 3 classes"),
        (np.eye(4), "y: labels of shape (4, 4) do not fit 4 inputs of 3 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    assert message_of(as_classes, labels, 3, 4) == message


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((2, 3, 4, 5)),
            "x: each input has shape (3, 4, 5), not (4, 5, 3); move the channels to the last axis",
        ),
        (np.zeros((2, 5, 4, 3)), "x: each input has shape (5, 4, 3), not (4, 5, 3)"),
        (np.zeros((0, 4, 5, 3)), "x: there are no inputs"),
        (np.full((2, 4, 5, 3), np.nan), "x: not all inputs are finite"),
        (
            np.full((2, 4, 5, 3), 255.0),
            "x: has values up to 255, but normalised inputs are at most 2.0; pass spec.normalize(pixels), with pixels "
            "from 0 to 1",
        ),
    ],
    ids=["channels first", "another size", "none", "NaN", "pixels"],
)
def test_inputs_that_do_not_fit_are_refused(x, message):
    assert message_of(as_inputs, x, IMAGES) == message


def test_inputs_without_bounds_may_have_any_value():
    spec = DataSpec((2,), 2)
    np.testing.assert_array_equal(as_inputs([[1000, -5000]], spec), [[1000, -5000]])


def test_evaluate_takes_every_certain_form():
    model = from_function(lambda x: x, DataSpec((3,), 3))
    x = np.eye(3)[CLASSES]
    assert cake_jax.evaluate(model, None, x.tolist(), np.eye(3)[CLASSES])["accuracy"] == 1
    assert message_of(cake_jax.evaluate, model, None, x, CLASSES + 1).startswith("y: labels are from 1 to 3")
    assert message_of(cake_jax.evaluate, model, None, x[:, :2], CLASSES).startswith("x: each input has shape (2,)")


def test_the_data_of_real_are_checked():
    settings, key = cake_jax.SynthesisSettings(num_batches=1, batch_size=4, num_groups=1), jax.random.key(0)
    spec = DataSpec((3,), 3)
    data = np.eye(3, dtype=np.float32)[CLASSES], CLASSES[:, None]
    samples = cake_jax.synthesize(key, lambda x: x, spec, settings, method="real", data=data)
    np.testing.assert_array_equal(samples.target, CLASSES)
    message = message_of(
        cake_jax.synthesize, key, lambda x: x, spec, settings, method="real", data=(data[0], CLASSES + 1)
    )
    assert message.startswith("data: labels are from 1 to 3")


def test_a_student_with_another_number_of_classes_is_refused():
    x, logits = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)
    samples = SampleBatch(x, logits, CLASSES.astype(np.int32), np.ones(4, np.float32), np.arange(4))
    model = create("mlp", DataSpec((3,), 5))
    message = message_of(cake_jax.distill, jax.random.key(0), model, samples)
    assert message == "model: MLP returns (1, 5) for an input, not the logits (1, 3)"
