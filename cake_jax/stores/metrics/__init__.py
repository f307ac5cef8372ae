"""Metrics of a run: the log, and writers of other formats. A writer is one file and one line of `WRITERS`."""

from collections.abc import Callable
from pathlib import Path

from cake_jax.stores.metrics.csv_files import CsvFiles
from cake_jax.stores.metrics.log import MetricsLog
from cake_jax.stores.metrics.writer import MetricsWriter

# Each entry makes a writer for the run in a folder.
WRITERS: dict[str, Callable[[Path], MetricsWriter]] = {"csv": CsvFiles}

__all__ = ["WRITERS", "MetricsLog", "MetricsWriter"]
