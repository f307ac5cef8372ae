"""When a stage that works for long saves its state."""

import time

# Least time between two saves. So a stop costs at most this time, and one epoch or round.
SAVE_SECONDS = 2.0
# A twentieth of it. If a save takes longer, the time between saves is longer in proportion.
_QUICK_SECONDS = 0.1


class Saves:
    """The time since the last save. It is a context around each save, which measures it."""

    def __init__(self) -> None:
        self._started = self._ended = time.perf_counter()
        self._apart = SAVE_SECONDS

    def are_due(self) -> bool:
        """Whether it is time for the next save."""
        return time.perf_counter() - self._ended > self._apart

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._ended = time.perf_counter()
        self._apart = SAVE_SECONDS * max(1.0, (self._ended - self._started) / _QUICK_SECONDS)
