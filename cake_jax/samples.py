"""The sample store: append-only shards, one a mini-batch, and an index.

A shard is complete before the index names it, and the index is replaced as a whole; so a kill at any moment leaves a
store that reads as what was finished. Anyone can open a shard with `numpy.load`; `python -m cake_jax.export` makes one
file of a store.
"""

import fcntl
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cake_jax.files import write_atomically
from cake_jax.types import CakeError, SampleBatch

INDEX = "index.jsonl"
_LOCK = "index.lock"


class SampleStore:
    """The synthetic samples of one run.

    Attributes:
      folder: Where the shards and the index are.
      entries: What the index says, by mini-batch number: `file`, `count`, `shape`, `num_classes`, `dtype`, `step_size`,
        `sha256`, and what `append` was given besides.
    """

    def __init__(self, folder: str | Path) -> None:
        """Opens a store, or starts an empty one where there is none.

        Raises:
          CakeError: The index is damaged anywhere but in an unfinished last line.
        """
        self.folder = Path(folder)
        self.entries = self._read_index()

    def _read_index(self) -> dict[int, dict[str, Any]]:
        entries: dict[int, dict[str, Any]] = {}
        index = self.folder / INDEX
        lines = index.read_bytes().splitlines(keepends=True) if index.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                # A shard that was deleted, because it was damaged say, is simply one to make again.
                if (self.folder / entry["file"]).exists():
                    entries[int(entry["batch"])] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise CakeError(f"{index}: line {number} is damaged; delete the line and run again") from error
        return dict(sorted(entries.items()))

    @property
    def count(self) -> int:
        """Number of samples in all."""
        return sum(entry["count"] for entry in self.entries.values())

    def append(self, batch: int, samples: SampleBatch, **facts: Any) -> None:
        """Adds a mini-batch; it is on the disk when this returns. Several processes may append to one store.

        Args:
          batch: Number of the mini-batch, not in the store yet.
          samples: Its samples; all of one step size.
          **facts: JSON-ready values for the index, such as query counts.

        Raises:
          CakeError: The store holds the mini-batch already.
          OSError: The disk is full, say; the store is as it was before.
        """
        if batch in self.entries:
            raise CakeError(f"{self.folder}: mini-batch {batch} is there already")
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
        with open(self.folder / _LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = dict(sorted({**self._read_index(), batch: entry}.items()))
            self._write_index(entries)
        self.entries = entries

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Drops the mini-batches whose number is not `wanted`."""
        dropped = [batch for batch in self.entries if not wanted(batch)]
        if dropped:
            self.entries = {batch: entry for batch, entry in self.entries.items() if batch not in dropped}
            self._write_index(self.entries)

    def _write_index(self, entries: Mapping[int, dict[str, Any]]) -> None:
        write_atomically(self.folder / INDEX, "".join(json.dumps(e) + "\n" for e in entries.values()).encode())

    def read(self, batch: int) -> SampleBatch:
        """One mini-batch.

        Raises:
          CakeError: Its shard is missing, or is not what was written.
        """
        path = self.folder / self.entries[batch]["file"]
        mend = "delete it and run again: it will be made anew"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CakeError(f"{path}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.entries[batch]["sha256"]:
            raise CakeError(f"{path}: damaged, its checksum differs; {mend}")
        with np.load(io.BytesIO(content), allow_pickle=False) as shard:
            return SampleBatch(**{name: shard[name] for name in SampleBatch._fields})

    def select(
        self,
        *,
        min_step_size: float | None = None,
        max_step_size: float | None = None,
        memory_limit: float = np.inf,
    ) -> SampleBatch:
        """All samples, or those whose step size lies in a closed range, in the order of their mini-batches.

        Args:
          min_step_size: Lowest step size to keep; None for no limit.
          max_step_size: Highest step size to keep; None for no limit.
          memory_limit: Bytes; what is larger comes as arrays in a file, of which the system holds in memory what it has
            room for. The file has no name, and goes with the arrays.

        Raises:
          CakeError: A shard is damaged, or nothing is left.
        """
        # Step sizes are stored as float32: a limit must be rounded likewise, or 0.1 would not be within 0.1.
        low = np.float32(0.0 if min_step_size is None else min_step_size)
        high = np.float32(np.inf if max_step_size is None else max_step_size)
        kept = [batch for batch, entry in self.entries.items() if low <= np.float32(entry["step_size"]) <= high]
        if not kept:
            raise CakeError(
                f"{self.folder}: no samples with a step size from {low} to {high}; there are {self.count} in all"
            )
        return self._join(kept, memory_limit)

    def _join(self, batches: list[int], memory_limit: float) -> SampleBatch:
        count = sum(self.entries[batch]["count"] for batch in batches)
        first = self.read(batches[0])
        in_memory = sum(field[0].nbytes for field in first) * count <= memory_limit

        def room(field: np.ndarray) -> np.ndarray:
            shape = (count, *field.shape[1:])
            if in_memory:
                return np.empty(shape, field.dtype)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                return np.memmap(file, field.dtype, "w+", shape=shape)

        joined, end = SampleBatch(*map(room, first)), 0
        for batch in batches:
            start, end = end, end + self.entries[batch]["count"]
            for field, part in zip(joined, self.read(batch), strict=True):
                field[start:end] = part
        return joined

    def totals(self) -> Mapping[str, int]:
        """Teacher queries that the samples cost: `forward` and `gradient`, as the index has them."""
        return {
            kind: sum(entry.get("queries", {}).get(kind, 0) for entry in self.entries.values())
            for kind in ("forward", "gradient")
        }
