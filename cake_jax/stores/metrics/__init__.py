"""Metrics of a run: the log, and writers of other formats. A writer is one file and one line of `WRITERS`."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

from cake_jax.stores.metrics.csv_files import CsvFiles
from cake_jax.stores.metrics.log import MetricsLog
from cake_jax.stores.metrics.tensorboard import TensorBoard
from cake_jax.stores.metrics.wandb import WandB
from cake_jax.stores.metrics.writer import MetricsWriter
from cake_jax.types import CakeError

# Each entry makes a writer for the run in a folder.
WRITERS: dict[str, Callable[[Path], MetricsWriter]] = {
    "csv": CsvFiles,
    "tensorboard": TensorBoard,
    "wandb": WandB,
}

__all__ = ["WRITERS", "MetricsLog", "MetricsWriter", "check"]


def check(names: Iterable[str]) -> None:
    """Checks that the libraries of writers are installed.

    Args:
      names: Names in `WRITERS`.

    Raises:
      CakeError: A library is missing.
    """
    for name in names:
        library = getattr(WRITERS[name], "library", None)
        if library and importlib.util.find_spec(library) is None:
            raise CakeError(f"log.{name}: needs {library} (pip install {library})")
