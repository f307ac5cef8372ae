"""Measures what the files of a run cost: in one process with more and more shards, and in several processes.

    python scripts/benchmark_storage.py --folder=/path/of/the/file/system --out=results/storage_cpu.json

All times are seconds. Each is measured several times, and the printed figures are medians:

- `append` adds a mini-batch to a store, and `open` opens the store. `shards` is the number that the store has already.
- `check` is the checksum of a shard.
- `line` adds a line to the metrics log. `write` and `flush` write a file, the latter with a flush to the disk.
- `save` and `load` are those of a training state. Of several processes, the slowest counts.
- `barrier` is the time in which all processes wait for each other.
- With several processes, `append` is the time of a process for one mini-batch, while all of them append.
"""

import functools
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from machine import describe as describe_machine

from cake_jax import parallel
from cake_jax.arguments import parse_flags, write_results
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import INDEX, SampleStore
from cake_jax.types import SampleBatch

_FOLDER = flags.DEFINE_string("folder", "", "Folder on the file system to measure; by default a temporary one.")
_SHARDS = flags.DEFINE_list("shards", ["1", "100", "1000", "10000"], "Numbers of shards that a store has already.")
_SAMPLES = flags.DEFINE_integer("samples", 500, "Samples in a mini-batch, as large as those of MNIST.")
_PROCESSES = flags.DEFINE_list("processes", ["1", "2", "4", "8"], "Numbers of processes.")
_MEGABYTES = flags.DEFINE_list("megabytes", ["1", "100"], "Sizes of the saved states.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Times that each operation is measured.")
_OUT = flags.DEFINE_string("out", "", "JSON file for all measurements.")


def main(argv: list[str]) -> None:
    """Measures everything, prints the medians, and writes all measurements."""
    logging.set_verbosity(logging.FATAL)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as home:
        folder = Path(home)
        cases = [_file_case(folder)]
        cases += [_store_case(folder / "store", int(number)) for number in _SHARDS.value]
        cases += [_processes_case(folder / "shared", int(number)) for number in _PROCESSES.value]
    for case in cases:
        medians = {name: statistics.median(times) for name, times in case["seconds"].items()}
        label = ", ".join(f"{name} {value}" for name, value in case.items() if name != "seconds")
        print(f"{label}: " + ", ".join(f"{name} {1000 * median:.3g} ms" for name, median in medians.items()))
    write_results(_OUT.value, machine=machine, cases=cases)


def _file_case(folder: Path) -> dict[str, Any]:
    """A line of the log, and a file of a shard's size with and without a flush to the disk."""
    log, shard = MetricsLog(folder / "metrics.jsonl"), bytes(_minibatch().x.nbytes)

    def write(flush: bool) -> None:
        with open(folder / "file", "wb") as file:
            file.write(shard)
            if flush:
                file.flush()
                os.fsync(file.fileno())

    seconds = {
        "line": _times(lambda number: log.write("student", number, loss=0.1, accuracy=0.9)),
        "write": _times(lambda number: write(False)),
        "flush": _times(lambda number: write(True)),
    }
    return {"processes": 1, "seconds": seconds}


def _store_case(folder: Path, shards: int) -> dict[str, Any]:
    """A store of many shards, which are links to one file."""
    store = SampleStore(folder)
    store.append(0, _minibatch(), num_steps=64, queries={"forward": 0, "gradient": 32000})
    first, lines = store.entries[0], []
    for number in range(1, shards):
        name = f"batch-{number:06d}.npz"
        os.link(folder / first["file"], folder / name)
        lines.append(json.dumps({**first, "batch": number, "file": name}))
    with open(folder / INDEX, "a") as index:
        index.writelines(f"{line}\n" for line in lines)
    opened = _times(lambda number: SampleStore(folder))
    store = SampleStore(folder)
    checked = _times(lambda number: store.is_damaged(0))
    appended = _times(lambda number: store.append(10**6 + number, _minibatch(), num_steps=64))
    shutil.rmtree(folder)
    return {"shards": shards, "seconds": {"append": appended, "open": opened, "check": checked}}


def _processes_case(folder: Path, processes: int) -> dict[str, Any]:
    """Processes that append to one store, wait for each other, and save and load a state together."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    sizes = [int(size) for size in _MEGABYTES.value]
    work = functools.partial(_work, folder, coordinator, processes, sizes, _REPEATS.value, _SAMPLES.value)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.map(work, range(processes), chunksize=1)
    shutil.rmtree(folder)
    seconds = {name: np.max([each[name] for each in found], axis=0).tolist() for name in found[0]}
    return {"processes": processes, "seconds": seconds}


def _work(
    folder: Path, coordinator: str, processes: int, sizes: list[int], repeats: int, samples: int, number: int
) -> dict[str, list[float]]:
    """The seconds of one of several processes."""
    logging.set_verbosity(logging.FATAL)
    if processes > 1:
        parallel.join(coordinator, processes, number)
    store, batch = SampleStore(folder / "samples"), _minibatch(samples)
    seconds: dict[str, list[float]] = {}
    parallel.wait_for_all("compiled")
    seconds["barrier"] = _times(lambda repeat: parallel.wait_for_all("barrier"), repeats)
    seconds["append"] = _times(lambda repeat: store.append(repeat * processes + number, batch), repeats)
    for size in sizes:
        state = {f"layer {layer}": np.ones(size * 2**20 // 80, np.float32) * number for layer in range(20)}
        model, few = folder / f"{size}", max(3, repeats // 5)

        def save(repeat: int, model: Path = model, state: dict[str, np.ndarray] = state) -> None:
            checkpoint.save_state(model, repeat, state)
            parallel.wait_for_all("saved")

        def load(repeat: int, model: Path = model, state: dict[str, np.ndarray] = state) -> None:
            checkpoint.load_state(model, state)

        seconds[f"save {size} MB"] = _times(save, few)
        seconds[f"load {size} MB"] = _times(load, few)
    parallel.wait_for_all("done")
    return seconds


def _times(function: Callable[[int], Any], repeats: int | None = None) -> list[float]:
    """The seconds of each of several calls. The function gets the number of the call."""
    times = []
    for number in range(repeats or _REPEATS.value):
        started = time.perf_counter()
        function(number)
        times.append(time.perf_counter() - started)
    return times


def _minibatch(samples: int | None = None) -> SampleBatch:
    """Samples with the size of MNIST's."""
    count = samples or _SAMPLES.value
    return SampleBatch(
        x=np.full((count, 28, 28, 1), 0.5, np.float32),
        logits=np.zeros((count, 10), np.float32),
        target=np.zeros(count, np.int32),
        step_size=np.full(count, 0.1, np.float32),
        set_index=np.zeros(count, np.int32),
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
