"""Agreement on procedural images: a figure for users without data."""

import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax.evaluation import starts_agreement
from cake_jax.starts import STARTS
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec

IMAGES, PLANE = DataSpec((4, 4, 1), 2), DataSpec((2,), 2)


def first_pixel_above(limit, spec=IMAGES):
    """A model whose class is 1 if the first value is above the limit."""

    def logits(x):
        first = x.reshape(len(x), -1)[:, :1]
        others = jnp.full((len(x), spec.num_classes - 2), -1e9)
        return jnp.concatenate([jnp.full_like(first, limit), first, others], axis=1)

    return from_function(logits, spec)


class Recording:
    """A model that keeps the inputs that it is asked for."""

    def __init__(self, model):
        self.model, self.spec, self.seen = model, model.spec, []

    def predict(self, x):
        self.seen.append(x)
        return self.model.predict(x)


@pytest.fixture(scope="module")
def images():
    model = Recording(first_pixel_above(0.0))
    assert starts_agreement(model, model.model) == 1
    return model.seen[0]


def test_the_agreement_is_the_share_of_equal_decisions(images):
    """The models differ where the first pixel is between their limits."""
    first = images[:, 0, 0, 0]
    differ = np.mean((first > -0.4) & (first <= 0.3))
    assert 0.1 < differ < 0.9
    assert starts_agreement(first_pixel_above(0.3), first_pixel_above(-0.4)) == pytest.approx(1 - differ)


def test_the_images_come_from_all_starts_for_images_and_are_always_the_same(images):
    assert len(images) == 1000 * sum(start.needs_images for start in STARTS.values())
    parts = np.split(images, len(images) // 1000)
    spread = [(float(part.mean()), float(part.std())) for part in parts]
    assert len(set(spread)) == len(parts), "each part comes from another start"
    again = Recording(first_pixel_above(0.0, DataSpec((4, 4, 1), 3)))  # no images are kept for this specification
    starts_agreement(again, again.model)
    np.testing.assert_array_equal(again.seen[0], images)


MODEL, OF_THE_PLANE = first_pixel_above(0.0), first_pixel_above(0.0, PLANE)


@pytest.mark.parametrize(
    ("student", "teacher"), [(OF_THE_PLANE, OF_THE_PLANE), (None, MODEL), (MODEL, None), (None, None)]
)
def test_without_two_models_of_images_it_is_none(student, teacher):
    assert starts_agreement(student, teacher) is None


def test_only_images_count_of_which_the_teacher_is_sure(images):
    """The teacher's odds of class 1 are exp(first pixel), so 90 % are a first pixel beyond +- log 9."""
    first = images[:, 0, 0, 0]
    sure = np.abs(first) >= np.log(9)
    assert sure.sum() > 50
    expected = 1 - np.mean((first[sure] > 0) & (first[sure] <= 3))
    assert 0 < expected < 1
    assert starts_agreement(first_pixel_above(3.0), MODEL, 0.9) == pytest.approx(expected)
    assert starts_agreement(first_pixel_above(3.0), MODEL, 1.0) is None
