"""Checks of single values. Each raises a `CakeError` that names the field at fault."""

import difflib
from collections.abc import Iterable
from typing import Any

from cake_jax.types import CakeError


def did_you_mean(value: Any, names: Iterable[str]) -> str:
    """The end of a message about a wrong name: a question with the most similar name, or nothing."""
    similar = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def one_of(field: str, value: Any, names: Iterable[str]) -> None:
    """Refuses a value that is not among `names`.

    Raises:
      CakeError: The message has the field, the value and all names.
    """
    names = tuple(names)
    if value not in names:
        raise CakeError(f"{field}: '{value}' is not one of {', '.join(names)}{did_you_mean(value, names)}")


def above_zero(field: str, value: float) -> None:
    """Refuses 0, negative numbers and NaN.

    Raises:
      CakeError: The message has the field and the value.
    """
    if not value > 0:
        raise CakeError(f"{field}: {value} must be above 0")


def not_negative(field: str, value: float) -> None:
    """Refuses negative numbers and NaN.

    Raises:
      CakeError: The message has the field and the value.
    """
    if not value >= 0:
        raise CakeError(f"{field}: {value} is below 0")


def fraction(field: str, value: float, *, with_one: bool = False) -> None:
    """Refuses NaN and numbers outside [0, 1). With `with_one`, 1 is allowed.

    Raises:
      CakeError: The message has the field and the value.
    """
    if not (0 <= value < 1 or (with_one and value == 1)):
        raise CakeError(f"{field}: {value} is not in [0, 1{']' if with_one else ')'}")
