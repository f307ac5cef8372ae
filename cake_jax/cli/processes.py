"""Several processes of one run on one machine: they start together, and end together if one of them fails."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from cake_jax import parallel, stopping

_POLL_SECONDS = 0.2


def launch(argv: Sequence[str], count: int) -> int:
    """Runs a command line in `count` processes. Each process gets its share of the CPU cores.

    Args:
      argv: Arguments of `cake_jax.cli` for each process, without the program's name.
      count: P, the number of processes.

    Returns:
      The exit code: 0 if all processes succeed, else that of the process that failed first. 1 if a signal ended it. 143
      if this process has received SIGTERM, which it passes on.
    """
    cores = parallel.usable_cores()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = [sys.executable, "-m", "cake_jax.cli", *argv, f"--coordinator={coordinator}", f"--num_processes={count}"]
    shared.append(f"--launcher={os.getpid()}")
    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryFile("w+") as others:
        try:
            for number in range(count):
                # All processes print the same lines, so only those of process 0 are shown.
                out, err = (None, None) if number == 0 else (subprocess.DEVNULL, others)
                processes.append(subprocess.Popen([*shared, f"--process_id={number}"], stdout=out, stderr=err))
                if hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(processes[-1].pid, cores[number % len(cores) :: count])
            failed = _first_failure(processes)
            if failed and failed[1] > 0:  # process 0 may fail for the same reason and print the error itself
                with contextlib.suppress(subprocess.TimeoutExpired):
                    processes[0].wait(stopping.WAIT_SECONDS)
            is_printed = (processes[0].poll() or 0) > 0
        finally:
            _end(processes)
        if stopping.is_asked():
            print(stopping.MESSAGE, file=sys.stderr)
            return stopping.EXIT_CODE
        if failed is None:
            return 0
        number, code = failed
        others.seek(0)
        errors = [line for line in others if line.startswith("error: ")]
    if code < 0:
        print(
            f"error: process {number} of {count} was ended by signal {-code}; run the same command again to go on",
            file=sys.stderr,
        )
        return 1
    if errors and not is_printed:
        print(errors[0], end="", file=sys.stderr)
    return code


def end_with(launcher: int) -> None:
    """Ends this process if the process that launched it is gone. Otherwise nobody would end it and free the folder."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _first_failure(processes: Sequence[subprocess.Popen]) -> tuple[int, int] | None:
    """Waits until a process fails, and returns its number and its exit code.

    None once all processes have succeeded, or if a stop is asked for.
    """
    while not stopping.is_asked():
        codes = [process.poll() for process in processes]
        # If a signal ended a process, others may have failed because of it. So the signal comes first. JAX aborts
        # processes that have lost process 0. So SIGABRT comes last.
        failures = sorted(
            (code == -signal.SIGABRT, code > 0, number, code) for number, code in enumerate(codes) if code
        )
        if failures:
            *_, number, code = failures[0]
            return number, code
        if None not in codes:
            return None
        time.sleep(_POLL_SECONDS)
    return None


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Ends the processes that still run: with SIGTERM, and after a grace period with SIGKILL."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + stopping.WAIT_SECONDS
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
