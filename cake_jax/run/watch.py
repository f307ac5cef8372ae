"""Watching a run while it works: its progress on stderr, and JAX traces of a few of its steps."""

import contextlib
import itertools
import statistics
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple, TypeVar

import jax
from tqdm import tqdm

from cake_jax import parallel

# Without a terminal, the least time between two lines of a stage.
_LINE_SECONDS = 30.0
# The time left is estimated from so many of the last items.
_RECENT = 20
# A stage takes longer over its first items, which compile programs. So a trace skips them if it can.
_SKIPPED = 3
# Longest time that a trace records. It bounds the trace's size if an epoch or mini-batch takes minutes.
_TRACE_SECONDS = 2.0

Item = TypeVar("Item")


class Watch(NamedTuple):
    """What the stages of a run show and record while they work.

    Attributes:
      quiet: Whether no progress is shown.
      traces: Folder for JAX traces. None for no traces.
    """

    quiet: bool = False
    traces: Path | None = None

    def progress(self, stage: str, unit: str, total: int, done: int) -> "Progress":
        """The progress of a stage, of which earlier runs have `done` items. Only the first process shows it."""
        return Progress(stage, unit, total, done, is_shown=parallel.is_first() and not self.quiet)

    def traced(self, stage: str, items: Iterable[Item], count: int) -> Iterator[Item]:
        """Yields items, and writes a JAX trace of the making of one of them.

        Args:
          stage: Name of the stage.
          items: Epochs or mini-batches, which are made as they are taken.
          count: The number of items.
        """
        items = iter(items)
        if self.traces is not None and count and parallel.is_first():
            yield from itertools.islice(items, max(0, min(_SKIPPED, count - 1)))
            with _trace(self.traces / stage):
                recorded = list(itertools.islice(items, 1))
            yield from recorded
        yield from items


class Progress:
    """The progress of one stage on stderr: a bar on a terminal, else a line from time to time.

    The time left is the median time of the last items, times the number of items left. The first item does not count.
    So compilation, which slows the first items down, does not distort the estimate for long.
    """

    def __init__(self, stage: str, unit: str, total: int, done: int, *, is_shown: bool) -> None:
        self._stage, self._unit, self._total, self._done = stage, unit, total, done
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._updated: float | None = None
        self._printed = monotonic()
        self._prints = is_shown and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=self._text({}),
            bar_format="{desc} |{bar}|",
            dynamic_ncols=True,
            miniters=1,
            disable=not is_shown or self._prints,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, values: Mapping[str, float], count: int = 1) -> None:
        """Counts items that are done.

        Args:
          values: Values of the items to show, by name.
          count: The number of items.
        """
        now = monotonic()
        if self._updated is not None:
            self._seconds.append((now - self._updated) / count)
        self._updated = now
        count = min(count, self._total - self._done)
        self._done += count
        self._bar.set_description_str(self._text(values), refresh=False)
        self._bar.update(count)
        if self._prints and now - self._printed >= _LINE_SECONDS:
            print(self._text(values), file=sys.stderr, flush=True)
            self._printed = now

    def _text(self, values: Mapping[str, float]) -> str:
        parts = [f"{self._stage}: {self._done:,} of {self._total:,} {self._unit}"]
        parts += [f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items()]
        left = self._total - self._done
        if self._seconds and left:
            parts.append(f"{duration(statistics.median_low(self._seconds) * left)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """A duration of at least a second, in its unit."""
    return (
        f"{max(seconds, 1):.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


@contextlib.contextmanager
def _trace(folder: Path) -> Iterator[None]:
    """Records a JAX trace of the work in its context, for `_TRACE_SECONDS` at most."""
    ended = threading.Event()
    # Tracing every Python call would slow down the methods that work on the host.
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0

    def stop() -> None:
        ended.wait(_TRACE_SECONDS)
        jax.profiler.stop_trace()

    jax.profiler.start_trace(folder, profiler_options=options)
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        yield
    finally:
        ended.set()
        stopper.join()
