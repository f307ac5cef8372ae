"""Stopping a run on SIGTERM, which schedulers send some seconds before they take a machine away.

The command line listens for the signal. The stages of a run call `stop_if_asked` where all their work is on the disk.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# The exit code of a shell for a command that SIGTERM ended: 128 + 15.
EXIT_CODE = 143
MESSAGE = "stopped by SIGTERM; run the same command again to go on, without --overwrite"
# The exit code of a shell for a command that Ctrl-C ended: 128 + 2.
INTERRUPTED_CODE = 130
INTERRUPTED_MESSAGE = "stopped; run the same command again to go on, without --overwrite"

# Seconds after SIGTERM within which a run ends, whatever it does. A process that waits for runs waits one longer.
GRACE_SECONDS = 8.0
WAIT_SECONDS = GRACE_SECONDS + 1

_asked = threading.Event()


class Stopped(Exception):
    """The run was asked to stop, and its work is saved."""


def is_asked() -> bool:
    """Whether this process has received SIGTERM since it listens."""
    return _asked.is_set()


def stop_if_asked() -> None:
    """Ends the work of a process that has received SIGTERM.

    Raises:
      Stopped: The process has received SIGTERM.
    """
    if is_asked():
        raise Stopped


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing. Unlike `signal.SIG_IGN`, a program that this process starts does not inherit it."""


@contextlib.contextmanager
def on_sigterm(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """In this context, SIGTERM asks for a stop. A process that is still there after `grace` seconds ends.

    Its exit code is `EXIT_CODE`.

    Whatever the process does when it ends, its folder stays usable: every write is complete or ignored.

    A thread waits for the signal. So a process also ends if its main thread is busy, for example with a compilation.
    Outside the main thread, which alone can handle signals, the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    ended = threading.Event()

    def wait() -> None:
        while received := receiver.recv(1):
            if received[0] == signal.SIGTERM:
                _asked.set()
                if not ended.wait(grace):
                    print(MESSAGE, file=sys.stderr, flush=True)
                    os._exit(EXIT_CODE)

    # Python's own handler runs in the main thread only. The number of the signal reaches the socket at once.
    afterwards = signal.signal(signal.SIGTERM, _ignore)
    earlier_end = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    try:
        yield
    except SystemExit:
        afterwards = _ignore  # the process ends by itself, and keeps its own exit code
        raise
    finally:
        signal.signal(signal.SIGTERM, afterwards)
        signal.set_wakeup_fd(earlier_end)
        ended.set()
        sender.close()
        waiter.join()
        receiver.close()
        _asked.clear()
