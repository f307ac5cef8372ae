"""The ledger of a black box: a SQLite file of all queries and answers.

A query is recorded before it is sent. Each method that records returns when its data are on the disk. If the process is
killed, the file keeps everything recorded before. `python -m cake_jax.export` makes a data set from a ledger.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cake_jax import checks
from cake_jax.black_box.answer_kinds import KINDS, empty_answers
from cake_jax.files import check_regular, parse_json
from cake_jax.types import CakeError, DataSpec, first_line

_TABLES = (
    "CREATE TABLE terms (json TEXT NOT NULL CHECK (typeof(json) = 'text'), checksum INTEGER NOT NULL)",
    "CREATE TABLE requests (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE CHECK (typeof(key) = 'text'))",
    """CREATE TABLE rows (
      number INTEGER PRIMARY KEY,
      request INTEGER NOT NULL REFERENCES requests,
      digest BLOB NOT NULL UNIQUE CHECK (typeof(digest) = 'blob'),
      x BLOB NOT NULL CHECK (typeof(x) = 'blob'),
      answer BLOB CHECK (typeof(answer) IN ('blob', 'null')),
      checksum INTEGER)""",
    "CREATE INDEX pending ON rows (number) WHERE answer IS NULL",
)
_REASONS = {
    "SQLITE_BUSY": "another process uses it; wait for that process, or name another file",
    "SQLITE_NOTADB": "not a ledger, or damaged; name another file",
    "SQLITE_CORRUPT": "damaged; name another file",
}
# SQLite has no larger whole number.
_LARGEST_NUMBER = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Terms:
    """The properties that all queries of a ledger share.

    Attributes:
      spec: Specification of the inputs.
      answers: Kind of the answers: "labels", "scores" (probabilities) or "logits".
      pixels: Whether the teacher takes inputs in pixel units. Otherwise it takes normalised inputs.

    Raises:
      CakeError: `answers` is not one of `answer_kinds.KINDS`.
    """

    spec: DataSpec
    answers: str
    pixels: bool = True

    def __post_init__(self) -> None:
        checks.one_of("answers", self.answers, KINDS)

    def to_json(self) -> str:
        """The fields as one line of JSON. `from_json` is the inverse."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Terms":
        """The terms from a line of `to_json`.

        Raises:
          CakeError: The line is another text.
        """
        try:
            fields = parse_json(text)
            return cls(**{**fields, "spec": DataSpec.from_dict(fields["spec"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CakeError(f"its terms are unreadable ({first_line(error)})") from error


class Request(NamedTuple):
    """Inputs that are sent to the teacher together.

    Attributes:
      key: Hexadecimal SHA-256 of the ledger's terms and the rows. Equal rows in the same order have equal keys.
      x: Normalised inputs `[B, *shape]` float32.
    """

    key: str
    x: np.ndarray


class Ledger:
    """Queries and answers of one teacher, in the order of the queries. One process at a time may open a ledger.

    A row holds one input, its request and its answer. The SHA-256 of the input's float32 values identifies the row. A
    row is reserved once, together with its request, before the request is sent.

    Attributes:
      name: Name of the file for messages.
      terms: Properties that all queries share.
    """

    def __init__(self, path: str | Path | None, terms: Terms | None = None) -> None:
        """Opens a ledger, or makes a new one if the file is missing.

        Args:
          path: File of the ledger. None keeps the ledger in memory only.
          terms: Properties that all queries share. None reads them from the file, which must exist.

        Raises:
          CakeError: The file is damaged, is not a ledger, has other terms, or is open in another process.
        """
        self.name = str(path or "ledger")
        self._refused = Path(f"{path}.refused.jsonl") if path else None
        if terms is None and not (path and Path(path).is_file()):
            raise CakeError(f"{self.name}: no such file")
        if path and Path(path).exists():
            check_regular(Path(path))
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self._translated_errors():
            connection = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None, check_same_thread=False)
        self._connection, self._lock = connection, threading.Lock()
        self._close = weakref.finalize(self, connection.close)
        try:
            self.terms = self._open(terms)
        except BaseException:
            self.close()
            raise

    def _open(self, terms: Terms | None) -> Terms:
        with self._translated_errors():
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # keeps the lock of the first transaction
            self._connection.execute("PRAGMA synchronous = EXTRA")
        with self._transaction() as connection:
            tables = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
            if not tables and terms is not None:
                for table in _TABLES:
                    connection.execute(table)
                text = terms.to_json()
                connection.execute("INSERT INTO terms VALUES (?, ?)", [text, zlib.crc32(text.encode())])
                return terms
            if tables != [(table,) for table in _TABLES]:
                raise CakeError(f"{self.name}: not a ledger of this version, or damaged; name another file")
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise self._damage_error("its structure is inconsistent")
            text, checksum = connection.execute("SELECT json, checksum FROM terms").fetchone()
            if zlib.crc32(text.encode()) != checksum:
                raise self._damage_error("the checksum of its terms differs")
            try:
                found = Terms.from_json(text)
            except CakeError as error:
                raise self._damage_error(str(error)) from error
            sizes = 4 * math.prod(found.spec.shape), 4 * (1 if found.answers == "labels" else found.spec.num_classes)
            statement = "SELECT count(*) FROM rows WHERE length(x) != ? OR length(answer) != ?"
            if connection.execute(statement, [min(size, _LARGEST_NUMBER) for size in sizes]).fetchone() != (0,):
                raise self._damage_error("a row has not the size that its terms say")
        if terms is not None and terms != found:
            theirs, ours = ({**dataclasses.asdict(each), **each.spec.to_dict()} for each in (found, terms))
            field = next(field for field in ours if field != "spec" and ours[field] != theirs[field])
            raise CakeError(f"{self.name}: its {field} is {theirs[field]}, not {ours[field]}; name another file")
        return found

    @property
    def num_rows(self) -> int:
        """Number of reserved rows, answered or not."""
        return self._count("SELECT count(*) FROM rows")

    @property
    def num_answered(self) -> int:
        """Number of answered rows."""
        return self.num_rows - self._count("SELECT count(*) FROM rows WHERE answer IS NULL")

    def find(self, digests: Iterable[bytes]) -> dict[bytes, np.ndarray | None]:
        """Returns the answers of rows.

        Args:
          digests: Digests of the rows, as the function `digests` returns them.

        Returns:
          A dict from the digests of reserved rows to their answers: a label `[]` int32, or scores or logits `[K]`
          float32. The answer is None if the row is not answered yet.

        Raises:
          CakeError: An answer is damaged.
        """
        found: dict[bytes, np.ndarray | None] = {}
        with self._transaction() as connection:
            for digest in digests:
                query = "SELECT answer, checksum FROM rows WHERE digest = ?"
                for answer, checksum in connection.execute(query, [digest]):
                    found[digest] = None if answer is None else self._decoded(digest, answer, checksum)
        return found

    def pending(self) -> list[Request]:
        """The reserved requests without answers, with the keys and rows of their reservation.

        Raises:
          CakeError: A request is damaged.
        """
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT key, digest, x FROM rows JOIN requests ON request = requests.number"
                " WHERE answer IS NULL ORDER BY rows.number"
            ).fetchall()
        found = []
        for key, group in itertools.groupby(rows, key=lambda row: row[0]):
            found.append(Request(key, np.stack([self._row(*row[1:]) for row in group])))
            if key != self._key(found[-1].x):
                raise self._damage_error("the key of a request differs")
        return found

    def reserve(self, x: np.ndarray) -> Request:
        """Records a request before it is sent. A request that is reserved already does not change the ledger.

        Args:
          x: Normalised inputs `[B, *shape]` float32. They must differ, and none may belong to another request.

        Returns:
          The request. It is on the disk.

        Raises:
          CakeError: An input belongs to another request, or the file cannot be written. Then nothing is reserved.
        """
        row_digests, key = digests(x), self._key(x)
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM requests WHERE key = ?", [key]).fetchone() is None:
                number = connection.execute("INSERT INTO requests (key) VALUES (?)", [key]).lastrowid
                values = [
                    (number, digest, row.astype("<f4").tobytes()) for digest, row in zip(row_digests, x, strict=True)
                ]
                connection.executemany("INSERT INTO rows (request, digest, x) VALUES (?, ?, ?)", values)
        return Request(key, x)

    def record(self, request: Request, answers: np.ndarray) -> None:
        """Records the answers to a reserved request, and returns when they are on the disk.

        A row that has an answer keeps it.

        Args:
          request: The request.
          answers: Labels `[B]`, or scores or logits `[B, K]`.
        """
        blobs = [answer.astype(self._type).tobytes() for answer in answers]
        values = [
            (blob, _checksum(digest, blob), digest) for digest, blob in zip(digests(request.x), blobs, strict=True)
        ]
        with self._transaction() as connection:
            statement = "UPDATE rows SET answer = ?, checksum = ? WHERE digest = ? AND answer IS NULL"
            connection.executemany(statement, values)

    def keep_refused(self, request: Request, answers: Any) -> str:
        """Keeps answers that are not valid, which may have cost money, in a file beside the ledger.

        Args:
          request: The request.
          answers: What the teacher returned.

        Returns:
          The end of a message, which names the file. Empty for a ledger in memory.
        """
        if self._refused is None:
            return ""
        line = {"key": request.key, "x": request.x, "answers": answers}
        try:
            text = json.dumps(line, default=lambda value: getattr(value, "tolist", value.__repr__)())
        except (TypeError, ValueError):  # keys that are no text, or a cycle
            text = json.dumps({"key": request.key, "x": request.x.tolist(), "answers": repr(answers)})
        try:
            with open(self._refused, "a") as file:
                file.write(text + "\n")
        except OSError as error:
            return f"; {self._refused} cannot keep these answers: {error.strerror}"
        return f"; {self._refused} keeps these answers"

    def answered(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all answered rows in the order of their queries.

        Returns:
          Normalised inputs `[N, *shape]` float32, and labels `[N]` int32, or scores or logits `[N, K]` float32.

        Raises:
          CakeError: A row or an answer is damaged.
        """
        count, spec = self.num_answered, self.terms.spec
        x = np.empty((count, *spec.shape), np.float32)
        answers = empty_answers(self.terms.answers, count, spec.num_classes)
        with self._transaction() as connection:
            query = "SELECT digest, x, answer, checksum FROM rows WHERE answer IS NOT NULL ORDER BY number"
            for i, (digest, row, answer, checksum) in enumerate(connection.execute(query)):
                x[i], answers[i] = self._row(digest, row), self._decoded(digest, answer, checksum)
        return x, answers

    def close(self) -> None:
        """Closes the file, so that another process may open it."""
        self._close()

    def _key(self, x: np.ndarray) -> str:
        return hashlib.sha256(self.terms.to_json().encode() + b"".join(digests(x))).hexdigest()

    @property
    def _type(self) -> str:
        return "<i4" if self.terms.answers == "labels" else "<f4"

    def _row(self, digest: bytes, content: bytes) -> np.ndarray:
        if hashlib.sha256(content).digest() != digest:
            raise self._damage_error("the checksum of an input differs")
        return np.frombuffer(content, "<f4").reshape(self.terms.spec.shape)

    def _decoded(self, digest: bytes, answer: bytes, checksum: int) -> np.ndarray:
        if _checksum(digest, answer) != checksum:
            raise self._damage_error("the checksum of an answer differs")
        values = np.frombuffer(answer, self._type)
        # Only valid answers are recorded, but others may have written the file.
        lowest = -np.inf if self.terms.answers == "logits" else 0
        highest = self.terms.spec.num_classes - 1 if self.terms.answers == "labels" else np.inf
        if not (np.isfinite(values).all() and lowest <= values.min() and values.max() <= highest):
            raise self._damage_error("an answer is invalid")
        return values[0] if self.terms.answers == "labels" else values

    def _damage_error(self, reason: str) -> CakeError:
        return CakeError(f"{self.name}: damaged, {reason}; name another file")

    def _count(self, query: str) -> int:
        with self._transaction() as connection:
            return connection.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Writes either all changes of the block to the disk, or none."""
        with self._lock, self._translated_errors(), self._connection as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield connection

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turns errors of SQLite into a `CakeError` with the file's name."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            # An error of text that is no longer UTF-8 has no code.
            default = "" if isinstance(error, sqlite3.ProgrammingError) else "SQLITE_CORRUPT"
            code = getattr(error, "sqlite_errorname", default)
            raise CakeError(f"{self.name}: {_REASONS.get(code, first_line(error))}") from error


def digests(x: np.ndarray) -> list[bytes]:
    """The SHA-256 of each row of x `[B, ...]` as float32, 32 bytes each."""
    return [hashlib.sha256(row.astype("<f4").tobytes()).digest() for row in x]


def _checksum(digest: bytes, answer: bytes) -> int:
    return zlib.crc32(answer, zlib.crc32(digest))
