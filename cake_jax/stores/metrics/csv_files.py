"""Metrics as CSV files, one for each stage, which spreadsheets and pandas open."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock

from cake_jax.types import CakeError


class CsvFiles:
    """A `MetricsWriter` that writes `metrics-<stage>.csv` into a folder, with one row for each step.

    The first row of a stage decides the columns: `step` and the names of the row's values. In later rows a missing
    value leaves its cell empty, and a value of another name is left out. None is an empty cell. A list or dict is JSON.

    A step that the file already has is not written again. An incomplete last line, left by a kill, is dropped when the
    stage is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._tables: dict[str, _Table] = {}

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a row, unless the file has this step.

        Raises:
          CakeError: The file of the stage is damaged.
        """
        path = self.folder / f"metrics-{stage}.csv"
        # Two processes must not both write the header.
        with FileLock(path.with_name(f".{path.name}.lock")), open(path, "ab+") as file:
            if stage not in self._tables:
                self._tables[stage] = _open(path, file, ("step", *values))
            table = self._tables[stage]
            if step not in table.steps:
                file.write(_line([step, *(_cell(values.get(name)) for name in table.columns[1:])]))
                table.steps.add(step)

    def picture(self, name: str, path: Path) -> None:
        """Does nothing: a table has no pictures."""

    def close(self) -> None:
        """Does nothing: every row is in its file when `write` returns."""


class _Table(NamedTuple):
    """The columns of a file, and the steps that it has."""

    columns: tuple[str, ...]
    steps: set[int]


def _open(path: Path, file: IO[bytes], columns: tuple[str, ...]) -> _Table:
    """Reads an existing table and drops an incomplete last line. An empty file gets `columns` as its header."""
    file.seek(0)
    content = file.read()
    complete = content[: content.rfind(b"\n") + 1]
    file.truncate(len(complete))
    if not complete:
        file.write(_line(columns))
        return _Table(columns, set())
    try:
        header, *rows = csv.reader(complete.decode().splitlines())
        return _Table(tuple(header), {int(row[0]) for row in rows})
    except (ValueError, IndexError, csv.Error) as error:
        raise CakeError(f"{path}: damaged; delete the file and run again") from error


def _cell(value: Any) -> Any:
    """A value as `csv` writes it, without a line break: an incomplete row is recognised by its missing line break."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return " ".join(value.splitlines()) if isinstance(value, str) else value


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
