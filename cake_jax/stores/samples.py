"""The sample store: an index, and one shard for each mini-batch. Shards are added, never changed.

A shard is complete before the index names it, and an incomplete last line of the index does not count. So a kill at any
moment leaves a store with all finished mini-batches. `numpy.load` opens a shard. `python -m cake_jax.export` joins a
store into one file.
"""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cake_jax.files import append_line, check_archive, parse_json, read, write_atomically
from cake_jax.types import CakeError, SampleBatch, first_line

INDEX = "index.jsonl"
_LOCK = "index.lock"
# About the time for which one append holds the lock.
_POLL_SECONDS = 0.005


class SampleStore:
    """The synthetic samples of one run.

    Attributes:
      folder: Folder of the shards and the index.
      entries: Entries of the index by mini-batch number, in order: those that were there when the store was opened, and
        those added through this object. If several lines name one mini-batch, the last one counts. An entry has `file`,
        `count`, `shape`, `num_classes`, `dtype`, `step_size`, `sha256`, and the `facts` given to `append`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Opens a store. If the folder has none, the store is empty.

        An incomplete last line of the index is ignored, and so is an entry whose shard was deleted.

        Raises:
          CakeError: Another line of the index is damaged.
        """
        self.folder = Path(folder)
        self.entries = self._read_index()

    def _read_index(self) -> dict[int, dict[str, Any]]:
        entries: dict[int, dict[str, Any]] = {}
        index = self.folder / INDEX
        lines = read(index).splitlines(keepends=True) if index.exists() else []
        files = {entry.name for entry in os.scandir(self.folder) if entry.is_file()} if lines else set()
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = _checked_entry(parse_json(line))
            except ValueError as error:
                raise CakeError(f"{index}: line {number} is damaged; delete the line and run again") from error
            # A user deletes a damaged shard to have it made again.
            if entry["file"] in files:
                entries[entry["batch"]] = entry
        return dict(sorted(entries.items()))

    @property
    def count(self) -> int:
        """The total number of samples."""
        return self.count_of(self.entries)

    def append(self, batch: int, samples: SampleBatch, **facts: Any) -> None:
        """Adds a mini-batch. When this returns, the mini-batch is on the disk.

        Several processes may append to one store.

        Args:
          batch: Number of the mini-batch. The store must not have it yet.
          samples: The samples of the mini-batch, which all have one step size.
          **facts: Further JSON-ready values for the index, such as query counts.

        Raises:
          CakeError: The store has the mini-batch already.
          OSError: The files cannot be written, for example because the disk is full. The store is unchanged.
        """
        if batch in self.entries:
            raise CakeError(f"{self.folder}: mini-batch {batch} exists already; use another number")
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **samples._asdict())
        content = buffer.getvalue()
        entry = {
            "batch": batch,
            "file": f"batch-{batch:06d}.npz",
            "count": samples.num_samples,
            "shape": list(samples.x.shape[1:]),
            "num_classes": int(samples.logits.shape[-1]),
            "dtype": str(samples.x.dtype),
            "step_size": float(samples.step_size[0]),
            "sha256": hashlib.sha256(content).hexdigest(),
            **facts,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / entry["file"], content)
        with self._locked():
            append_line(self.folder / INDEX, self._line(entry))
        is_last = not self.entries or batch > next(reversed(self.entries))
        self.entries[batch] = entry
        if not is_last:
            self.entries = dict(sorted(self.entries.items()))

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Drops mini-batches from the index: those whose number is not `wanted`."""
        if all(map(wanted, self.entries)):
            return
        with self._locked():
            self.entries = {batch: entry for batch, entry in self._read_index().items() if wanted(batch)}
            write_atomically(self.folder / INDEX, b"".join(map(self._line, self.entries.values())))

    def is_damaged(self, batch: int) -> bool:
        """Whether the shard of a mini-batch has another checksum than the index."""
        entry = self.entries[batch]
        return hashlib.sha256((self.folder / entry["file"]).read_bytes()).hexdigest() != entry["sha256"]

    def _locked(self) -> AbstractContextManager[Any]:
        """A context that keeps other processes from the index."""
        return FileLock(self.folder / _LOCK).acquire(poll_interval=_POLL_SECONDS)

    @staticmethod
    def _line(entry: Mapping[str, Any]) -> bytes:
        return json.dumps(entry).encode() + b"\n"

    def read(self, batch: int) -> SampleBatch:
        """The samples of one mini-batch.

        Raises:
          CakeError: The shard is missing or damaged.
        """
        path = self.folder / self.entries[batch]["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            mend = "make it readable, or delete it and run again"
            raise CakeError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
        if hashlib.sha256(content).hexdigest() != self.entries[batch]["sha256"]:
            raise CakeError(f"{path}: damaged, its checksum differs; delete it and run again to make it anew")
        try:
            return self._unpacked(content, self.entries[batch])
        except Exception as error:  # others may have made the file, and its checksum
            raise CakeError(f"{path}: not the samples that the index says: {first_line(error)}") from error

    def _unpacked(self, content: bytes, entry: Mapping[str, Any]) -> SampleBatch:
        """The samples in the content of a shard."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_archive("the shard", archive, len(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as shard:
            samples = SampleBatch(**{name: shard[name] for name in SampleBatch._fields})
        count = (entry["count"],)
        shapes = (*count, *entry["shape"]), (*count, entry["num_classes"]), count, count, count
        for name, array, shape in zip(SampleBatch._fields, samples, shapes, strict=True):
            if array.shape != shape or not np.issubdtype(array.dtype, np.number):
                raise CakeError(f"{name} has shape {array.shape} and type {array.dtype}, not {shape} numbers")
        return samples

    def select(
        self,
        *,
        min_step_size: float | None = None,
        max_step_size: float | None = None,
        memory_limit: float = np.inf,
    ) -> SampleBatch:
        """The samples whose step size lies in a closed range, in the order of their mini-batches.

        Args:
          min_step_size: Lowest step size to keep. None for no limit.
          max_step_size: Highest step size to keep. None for no limit.
          memory_limit: Bytes. Larger arrays are mapped from an unnamed file in the store's folder. The system reads its
            pages as needed, and the file vanishes with the arrays.

        Raises:
          CakeError: A shard is missing or damaged, or no sample has such a step size.
        """
        batches = self.with_step_size(min_step_size, max_step_size)
        count = self.count_of(batches)
        first = self.read(batches[0])
        in_memory = sum(field[0].nbytes for field in first) * count <= memory_limit

        def room(field: np.ndarray) -> np.ndarray:
            shape = (count, *field.shape[1:])
            if in_memory:
                return np.empty(shape, field.dtype)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                return np.memmap(file, field.dtype, "w+", shape=shape)

        try:
            joined, end = SampleBatch(*map(room, first)), 0
        except (MemoryError, ValueError, OverflowError) as error:
            raise CakeError(f"{self.folder / INDEX}: its {count:,} samples do not fit: {first_line(error)}") from error
        for batch in batches:
            start, end = end, end + self.entries[batch]["count"]
            for field, part in zip(joined, self.read(batch), strict=True):
                if part.shape[1:] != field.shape[1:]:
                    raise CakeError(f"{self.folder}: mini-batches {batches[0]} and {batch} have other shapes")
                field[start:end] = part
        return joined

    def with_step_size(self, low: float | None, high: float | None) -> list[int]:
        """The numbers of the mini-batches whose step size lies in a closed range. None is no limit.

        Raises:
          CakeError: There are none.
        """
        # Step sizes are stored as float32. Limits are rounded likewise, or a limit of 0.1 might exclude 0.1.
        least, most = np.float32(0.0 if low is None else low), np.float32(np.inf if high is None else high)
        kept = [batch for batch, entry in self.entries.items() if least <= np.float32(entry["step_size"]) <= most]
        if not kept:
            raise CakeError(
                f"{self.folder}: no samples with a step size from {least} to {most}; the store has {self.count} in "
                "total"
            )
        return kept

    def count_of(self, batches: Iterable[int]) -> int:
        """The number of samples in these mini-batches."""
        return sum(self.entries[batch]["count"] for batch in batches)

    def totals(self) -> Mapping[str, int]:
        """The numbers of teacher queries that the samples cost, `forward` and `gradient`."""
        return {
            kind: sum(entry.get("queries", {}).get(kind, 0) for entry in self.entries.values())
            for kind in ("forward", "gradient")
        }


def _checked_entry(entry: Any) -> dict[str, Any]:
    """Returns `entry` if it is one of the index. Others may have written it.

    Raises:
      ValueError: A field is missing or of another type, or the file is not in the store's folder.
    """
    match entry:
        case {
            "batch": int(),
            "file": str(file),
            "count": int(count),
            "shape": list(),
            "num_classes": int(),
            "step_size": int() | float(),
            "sha256": str(),
        } if Path(file).name == file and count >= 0:
            queries = entry.get("queries", {})
            if isinstance(queries, dict) and all(isinstance(number, int) for number in queries.values()):
                return entry
    raise ValueError("not an entry of the index")
