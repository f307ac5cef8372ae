"""SIGTERM asks for a stop, and ends a process that does not stop by itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cake_jax import stopping

BUSY = """
import time
from cake_jax import stopping
with stopping.on_sigterm(0.2):
    print("listens", flush=True)
    time.sleep(60)
"""


def wait_until_asked():
    deadline = time.monotonic() + 10
    while not stopping.is_asked() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_sigterm_asks_for_a_stop_in_its_context_only():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.on_sigterm():
        stopping.stop_if_asked()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until_asked()
        with pytest.raises(stopping.Stopped):
            stopping.stop_if_asked()
    stopping.stop_if_asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_does_not_stop_is_ended():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "listens\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == stopping.EXIT_CODE == 143
    assert time.monotonic() - started < 10
    assert errors == f"{stopping.MESSAGE}\n"


def test_a_process_that_ends_by_itself_keeps_its_exit_code():
    program = (
        "import atexit, sys, time\nfrom cake_jax import stopping\n"
        "atexit.register(lambda: (print('ends', flush=True), time.sleep(1)))\n"
        "with stopping.on_sigterm():\n    sys.exit(3)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ends\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 3
