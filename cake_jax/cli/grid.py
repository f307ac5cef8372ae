"""The grid of a sweep: all combinations of the values that a command line gives to config fields."""

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from cake_jax import checks
from cake_jax.types import CakeError

# Fields on which a run's teacher depends.
_OF_TEACHER = ("config.teacher.", "config.dataset.", "config.seed", "config.black_box.")
# The teacher is trained and saved without its temperature.
_TEMPERATURE = "config.teacher.temperature"
_OPEN, _CLOSED, _QUOTES = "([{", ")]}", "'\""


class Point(NamedTuple):
    """One combination of values.

    Attributes:
      values: Each field with more than one value in the sweep, and its value as text.
    """

    values: tuple[tuple[str, str], ...]

    @property
    def arguments(self) -> list[str]:
        """The arguments of the run's command line."""
        return [f"--{field}={value}" for field, value in self.values]

    @property
    def title(self) -> str:
        """The values without the seed, for a table's row."""
        return self._text([(field, value) for field, value in self.values if field != "config.seed"]) or "all seeds"

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        return self._text(self.values).replace("/", "_").replace(", ", ",")

    @property
    def teacher(self) -> "Point":
        """The values on which the teacher depends. Points with the same values can share a teacher."""
        return Point(tuple((f, value) for f, value in self.values if f.startswith(_OF_TEACHER) and f != _TEMPERATURE))

    def _text(self, values: Sequence[tuple[str, str]]) -> str:
        """Fields with the last part of their names if it tells them apart, and their values."""
        last = [field.rpartition(".")[2] for field, _ in self.values]
        names = {
            f: n if last.count(n) == 1 else f.removeprefix("config.")
            for (f, _), n in zip(self.values, last, strict=True)
        }
        return ", ".join(f"{names[field]}={value}" for field, value in values)


def parse(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Reads the fields of a sweep from a command line.

    Args:
      arguments: Arguments such as `--config.seed=0,1,2` or `--config.method=cake,noise`. A comma within brackets or
        quotes separates nothing.

    Returns:
      The fields with several values, each with its values, and all other arguments.
    """
    fields: dict[str, list[str]] = {}
    others = []
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        values = split(value)
        if name.startswith("config.") and len(values) > 1:
            fields[name] = values
        else:
            others.append(argument)
    return fields, others


def points(fields: dict[str, list[str]], count: int = 0, seed: int = 0) -> list[Point]:
    """All combinations, or some drawn at random.

    Args:
      fields: The values of each field.
      count: Number of combinations to draw without repetition. 0 for all.
      seed: Seed of the draw.

    Raises:
      CakeError: There are no fields, a value occurs twice, or `count` is negative.
    """
    if not fields:
        raise CakeError("a sweep needs a field with several values, such as --config.seed=0,1,2")
    for field, values in fields.items():
        if len(set(values)) < len(values):
            raise CakeError(f"{field}: {','.join(values)} has a value twice")
    checks.not_negative("random", count)
    combined = itertools.product(*([(field, value) for value in values] for field, values in fields.items()))
    grid = list(map(Point, combined))
    return random.Random(seed).sample(grid, min(count, len(grid))) if count else grid


def split(text: str) -> list[str]:
    """Splits a text at its commas, except within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSED:
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    return parts
