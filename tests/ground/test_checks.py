"""Checks of single values: the accepted values, and the messages for others."""

import math

import pytest

from cake_jax import checks
from cake_jax.types import CakeError

NAN = math.nan


def refusal(check, *arguments, **options):
    """The message with which a check refuses its arguments."""
    with pytest.raises(CakeError) as caught:
        check("part.field", *arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", [tuple, dict.fromkeys, iter])
def test_one_of_accepts_only_the_names(kind):
    for name in ("adam", "sgd"):
        checks.one_of("part.field", name, kind(("adam", "sgd")))
    for value in ("", "cosine", None, 3):
        assert refusal(checks.one_of, value, kind(("adam", "sgd"))) == f"part.field: '{value}' is not one of adam, sgd"


@pytest.mark.parametrize(("value", "similar"), [("Adam", "adam"), ("adma", "adam"), ("sdg", "sgd")])
def test_a_similar_name_is_suggested(value, similar):
    message = refusal(checks.one_of, value, iter(("adam", "sgd")))
    assert message == f"part.field: '{value}' is not one of adam, sgd; did you mean {similar}?"


@pytest.mark.parametrize(
    ("check", "accepted", "refused", "message"),
    [
        (checks.above_zero, (1, 1e-9, math.inf), (0, 0.0, -1, -1e-9, NAN), "part.field: {} must be above 0"),
        (checks.not_negative, (0, 0.0, 1, 1e-9), (-1, -1e-9, NAN), "part.field: {} is below 0"),
        (checks.fraction, (0, 0.5, 0.999), (1, 1.0, -1e-9, 2, NAN), "part.field: {} is not in [0, 1)"),
    ],
    ids=["above_zero", "not_negative", "fraction"],
)
def test_range_checks(check, accepted, refused, message):
    for value in accepted:
        check("part.field", value)
    for value in refused:
        assert refusal(check, value) == message.format(value)


def test_fraction_with_one():
    for value in (0, 0.5, 1, 1.0):
        checks.fraction("part.field", value, with_one=True)
    for value in (-1e-9, 1 + 1e-9, NAN):
        assert refusal(checks.fraction, value, with_one=True) == f"part.field: {value} is not in [0, 1]"
