"""Limits under which a test opens a hostile file."""

import contextlib
import resource
import signal
from pathlib import Path

STATUS = Path("/proc/self/statm")


class NoEndError(BaseException):
    """The time limit is over. It is no `Exception`, which the code under test may turn into another error."""


@contextlib.contextmanager
def little_memory(extra=2**29):
    """This process can get at most `extra` bytes more. A larger array ends in a `MemoryError`. Only Linux has it."""
    if not STATUS.exists():
        yield
        return
    used = int(STATUS.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def little_time(seconds=20):
    """Ends in an error instead of waiting for ever."""

    def end(*_):
        raise NoEndError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
