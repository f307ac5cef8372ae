"""Checks of single values: the accepted values, and the messages for others."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from cake_jax import checks
from cake_jax.types import CakeError, DataSpec

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
        assert refusal(checks.one_of, value, kind(("adam", "sgd"))) == f"part.field: {value!r} is not one of adam, sgd"


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


@dataclasses.dataclass(frozen=True)
class Fields:
    count: int = 1
    rate: float | None = None
    name: str = "a"
    on: bool = False
    names: tuple[str, ...] = ()
    pair: tuple[str, float] = ("a", 1.0)
    either: tuple[int | str, ...] = ()
    draw: str | Callable[[int], int] = "a"
    spec: DataSpec = dataclasses.field(default_factory=lambda: DataSpec((2,), 2))


@pytest.mark.parametrize(
    ("field", "accepted", "refused", "what"),
    [
        ("count", (0, -1, np.int64(3), 2**62), (1.0, True, "1", None, math.nan), "a whole number"),
        ("rate", (None, 1, 0.5, np.float32(1), math.inf), (True, "0.1", [0.1]), "a number or None"),
        ("name", ("", "b"), (None, 1, b"b"), "a text"),
        ("on", (True, np.bool_(True)), (0, 1, "true", None), "True or False"),
        ("names", ((), ("a", "b")), (["a"], "ab", ("a", 1)), "a tuple of texts"),
        ("pair", (("b", 2),), (("b",), ("b", 1, 2), ("b", "c")), "a tuple of a text and a number"),
        ("either", ((1, "a"),), ((None,), 1), "a tuple of whole numbers or texts"),
        ("draw", ("b", len), (1, None), "a text or a function"),
        ("spec", (DataSpec((3,), 2),), (None, DataSpec), "a DataSpec"),
    ],
)
def test_a_field_takes_values_of_its_type_only(field, accepted, refused, what):
    for value in accepted:
        checks.fields(Fields(**{field: value}))
    for value in refused:
        with pytest.raises(CakeError) as caught:
            checks.fields(Fields(**{field: value}))
        assert str(caught.value) == f"Fields.{field}: {checks.shown(value)} is not {what}"


@pytest.mark.parametrize(("field", "value"), [("count", 2**63), ("count", -(2**64)), ("rate", 10**30)])
def test_a_whole_number_of_more_than_64_bits_is_too_large(field, value):
    with pytest.raises(CakeError, match=f"^Fields.{field}: {value} is too large$"):
        checks.fields(Fields(**{field: value}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("adam", "'adam'"),
        (None, "None"),
        ((1, 2), "(1, 2)"),
        ("x" * 100, "a value of type str"),
        ((len,) * 9, "a value of type tuple"),
        ([1], "a list"),
        (np.zeros((2, 3)), "an array of shape (2, 3)"),
        (DataSpec, "the class DataSpec"),
        (lambda x: x, "a value of type function"),
    ],
)
def test_a_value_is_shown_in_few_words(value, text):
    assert checks.shown(value) == text
