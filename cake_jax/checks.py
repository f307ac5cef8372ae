"""Checks of single values. Each raises a `CakeError` that names the field at fault."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from cake_jax.errors import CakeError

# Larger whole numbers do not fit into any array.
_LARGEST = 2**63
_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", type(None): "None"}


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
    if not isinstance(value, str):
        raise CakeError(f"{field}: {shown(value)} is not one of {', '.join(names)}")
    if value not in names:
        raise CakeError(f"{field}: '{value}' is not one of {', '.join(names)}{did_you_mean(value, names)}")


def above_zero(field: str, value: float, *, finite: bool = False) -> None:
    """Refuses 0, negative numbers and NaN. With `finite`, also infinity.

    Raises:
      CakeError: The message has the field and the value.
    """
    if not value > 0:
        raise CakeError(f"{field}: {value} must be above 0")
    if finite and value == float("inf"):
        raise CakeError(f"{field}: {value} must be finite")


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


def kind(field: str, value: Any, kinds: Any, wanted: str) -> None:
    """Refuses a value that is of none of these types.

    Raises:
      CakeError: The message has the field, the value and the text `wanted`.
    """
    if not isinstance(value, kinds):
        raise CakeError(f"{field}: {shown(value)} is not {wanted}")


def fields(settings: Any) -> None:
    """Checks that the value of each field of a dataclass has the declared type.

    Raises:
      CakeError: The message has the class, the field, the value and what the field takes.
    """
    owner: Any = type(settings)
    for name, hint in _hints(owner).items():
        value = getattr(settings, name)
        if not _fits(value, hint):
            is_whole = isinstance(value, Integral) and not isinstance(value, bool)
            reason = "is too large" if is_whole and _fits(0, hint) else f"is not {_named(hint)}"
            raise CakeError(f"{owner.__name__}.{name}: {shown(value)} {reason}")


def shown(value: Any) -> str:
    """A short text for a value in a message: itself if it is a number or a short text, else its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | str | tuple):
        text = repr(value)
        if len(text) <= 60 and " at 0x" not in text and "<class" not in text:
            return text
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"a {name}" if isinstance(value, list | dict | set) else f"a value of type {name}"


@functools.cache
def _hints(owner: type) -> dict[str, Any]:
    """The types that the fields of a dataclass declare."""
    hints = typing.get_type_hints(owner)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type. Numbers of NumPy are numbers, and a whole number is a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is tuple:
        each = arguments[:1] * len(value) if isinstance(value, tuple) and arguments[-1] is ... else arguments
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if origin is Callable or hint is Callable:
        return callable(value)
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint in (int, float):
        is_number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return is_number and (not isinstance(value, Integral) or abs(int(value)) < _LARGEST)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _named(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_named, arguments))
    if origin is tuple:
        if arguments[-1] is not ...:
            return f"a tuple of {' and '.join(map(_named, arguments))}"
        return "a tuple of " + " or ".join(f"{name.removeprefix('a ')}s" for name in _named(arguments[0]).split(" or "))
    if hint in _NAMES:
        return _NAMES[hint]
    return "a function" if origin is Callable else f"a {getattr(hint, '__name__', hint)}"
