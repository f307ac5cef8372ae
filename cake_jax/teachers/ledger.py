"""The ledger of a teacher that can only be queried: each query before it is sent, and each answer.

One SQLite file. What a method recorded is on the disk when it returns, and a kill at any moment leaves a file that
reads as what was recorded. `python -m cake_jax.export` makes a data set of it.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cake_jax.teachers.answers import KINDS, room
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
    "SQLITE_BUSY": "another process uses it; wait until that ends, or name another file",
    "SQLITE_NOTADB": "no ledger, or damaged",
    "SQLITE_CORRUPT": "damaged",
}


@dataclasses.dataclass(frozen=True)
class Terms:
    """What all queries of a ledger have in common.

    Attributes:
      spec: The input domain.
      answers: "labels", "scores" (probabilities) or "logits".
      pixels: Whether the teacher sees inputs in pixel units, else normalised.

    Raises:
      CakeError: There is no such kind of answers.
    """

    spec: DataSpec
    answers: str
    pixels: bool = True

    def __post_init__(self) -> None:
        if self.answers not in KINDS:
            raise CakeError(f"answers: '{self.answers}' is not one of {', '.join(KINDS)}")

    def to_json(self) -> str:
        """The fields as one line; `from_json` reads them back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Terms":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "spec": DataSpec.from_dict(fields["spec"])})


class Request(NamedTuple):
    """Inputs that go to the teacher together.

    Attributes:
      key: Hexadecimal SHA-256 of the ledger's terms and the rows: the same for the same rows in the same order.
      x: `[B, *shape]` float32, normalised.
    """

    key: str
    x: np.ndarray


class Ledger:
    """Queries and answers of one teacher, in the order in which they were asked. One process at a time has it open.

    A row is an input's float32 values, and known by the SHA-256 of their bytes. It is reserved, with the request that
    it belongs to, before it is sent, and never again.

    Attributes:
      name: Its file, for messages.
      terms: What all its queries have in common.
    """

    def __init__(self, path: str | Path | None, terms: Terms | None = None) -> None:
        """Opens a ledger, or starts one where there is none.

        Args:
          path: Its file. None: it is kept in memory, and goes with the process.
          terms: What its queries have in common. None: what the file says, which must be there.

        Raises:
          CakeError: The file is damaged, no ledger, one of other terms, or in use by another process.
        """
        self.name = str(path or "ledger")
        if terms is None and not (path and Path(path).is_file()):
            raise CakeError(f"{self.name}: no such file")
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            connection = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None, check_same_thread=False)
        self._connection, self._one_at_a_time = connection, threading.Lock()
        self._close = weakref.finalize(self, connection.close)
        try:
            self.terms = self._open(terms)
        except BaseException:
            self.close()
            raise

    def _open(self, terms: Terms | None) -> Terms:
        with self._told():
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the first transaction's lock is kept
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
                raise CakeError(f"{self.name}: no ledger of this version, or damaged")
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise CakeError(f"{self.name}: damaged")
            text, checksum = connection.execute("SELECT json, checksum FROM terms").fetchone()
            if zlib.crc32(text.encode()) != checksum:
                raise CakeError(f"{self.name}: damaged, the checksum of its terms differs")
            found = Terms.from_json(text)
        if terms is not None and terms != found:
            theirs, ours = ({**dataclasses.asdict(each), **each.spec.to_dict()} for each in (found, terms))
            field = next(field for field in ours if field != "spec" and ours[field] != theirs[field])
            raise CakeError(f"{self.name}: its {field} is {theirs[field]}, not {ours[field]}; name another file")
        return found

    @property
    def num_rows(self) -> int:
        """Rows reserved, answered or not."""
        return self._count("SELECT count(*) FROM rows")

    @property
    def num_answered(self) -> int:
        """Rows answered."""
        return self.num_rows - self._count("SELECT count(*) FROM rows WHERE answer IS NULL")

    def find(self, digests: Iterable[bytes]) -> dict[bytes, np.ndarray | None]:
        """What is recorded of rows, those that are not reserved left out.

        Args:
          digests: Of the rows, as `digests` gives them.

        Returns:
          By digest: a label `[]` int32, scores or logits `[K]` float32; None where it is reserved but not answered.

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
        """The requests that are not answered, as they were reserved: to be asked again, under the same key."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT key, digest, x FROM rows JOIN requests ON request = requests.number"
                " WHERE answer IS NULL ORDER BY rows.number"
            ).fetchall()
        found = []
        for key, group in itertools.groupby(rows, key=lambda row: row[0]):
            found.append(Request(key, np.stack([self._row(*row[1:]) for row in group])))
            if key != self._key(found[-1].x):
                raise CakeError(f"{self.name}: damaged, the key of a request differs")
        return found

    def reserve(self, x: np.ndarray) -> Request:
        """Records the intent to ask; it is on the disk when this returns. The same request again changes nothing.

        Args:
          x: `[B, *shape]` float32, normalised; different rows, none of them reserved with others.

        Raises:
          CakeError: A row belongs to another request, or it cannot be written; nothing is reserved then.
        """
        names, key = digests(x), self._key(x)
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM requests WHERE key = ?", [key]).fetchone() is None:
                number = connection.execute("INSERT INTO requests (key) VALUES (?)", [key]).lastrowid
                values = [(number, name, row.astype("<f4").tobytes()) for name, row in zip(names, x, strict=True)]
                connection.executemany("INSERT INTO rows (request, digest, x) VALUES (?, ?, ?)", values)
        return Request(key, x)

    def record(self, request: Request, answers: np.ndarray) -> None:
        """Records the answers to a reserved request; they are on the disk when this returns. The first ones count.

        Args:
          request: The request.
          answers: Labels `[B]`, scores or logits `[B, K]`.
        """
        blobs = [answer.astype(self._type).tobytes() for answer in answers]
        values = [(blob, _checksum(name, blob), name) for name, blob in zip(digests(request.x), blobs, strict=True)]
        with self._transaction() as connection:
            statement = "UPDATE rows SET answer = ?, checksum = ? WHERE digest = ? AND answer IS NULL"
            connection.executemany(statement, values)

    def answered(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows that are answered, in the order in which they were asked.

        Returns:
          x `[N, *shape]` float32, normalised, and labels `[N]` int32, scores or logits `[N, K]` float32.

        Raises:
          CakeError: A row or an answer is damaged.
        """
        count, spec = self.num_answered, self.terms.spec
        x = np.empty((count, *spec.shape), np.float32)
        answers = room(self.terms.answers, count, spec.num_classes)
        with self._transaction() as connection:
            query = "SELECT digest, x, answer, checksum FROM rows WHERE answer IS NOT NULL ORDER BY number"
            for i, (digest, row, answer, checksum) in enumerate(connection.execute(query)):
                x[i], answers[i] = self._row(digest, row), self._decoded(digest, answer, checksum)
        return x, answers

    def close(self) -> None:
        """Lets another process have it."""
        self._close()

    def _key(self, x: np.ndarray) -> str:
        return hashlib.sha256(self.terms.to_json().encode() + b"".join(digests(x))).hexdigest()

    @property
    def _type(self) -> str:
        return "<i4" if self.terms.answers == "labels" else "<f4"

    def _row(self, digest: bytes, content: bytes) -> np.ndarray:
        if hashlib.sha256(content).digest() != digest:
            raise CakeError(f"{self.name}: damaged, the checksum of a row differs")
        return np.frombuffer(content, "<f4").reshape(self.terms.spec.shape)

    def _decoded(self, digest: bytes, answer: bytes, checksum: int) -> np.ndarray:
        if _checksum(digest, answer) != checksum:
            raise CakeError(f"{self.name}: damaged, the checksum of an answer differs")
        values = np.frombuffer(answer, self._type)
        return values[0] if self.terms.answers == "labels" else values

    def _count(self, query: str) -> int:
        with self._transaction() as connection:
            return connection.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done within is on the disk when it ends, or nothing of it."""
        with self._one_at_a_time, self._told(), self._connection as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            # Text that is none any more has no code of SQLite's.
            other = "" if isinstance(error, sqlite3.ProgrammingError) else "SQLITE_CORRUPT"
            code = getattr(error, "sqlite_errorname", other)
            raise CakeError(f"{self.name}: {_REASONS.get(code, first_line(error))}") from error


def digests(x: np.ndarray) -> list[bytes]:
    """The SHA-256 of each row's bytes, `[B, ...]` float32, 32 bytes each."""
    return [hashlib.sha256(row.astype("<f4").tobytes()).digest() for row in x]


def _checksum(digest: bytes, answer: bytes) -> int:
    return zlib.crc32(answer, zlib.crc32(digest))
