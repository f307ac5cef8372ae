"""Several processes of one run on one machine: started together, and ended together when one of them fails."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0


def launch(argv: Sequence[str], count: int) -> int:
    """Runs a command line in `count` processes, each on its share of the CPU cores.

    Args:
      argv: Arguments of `cake_jax.cli` for each process, without the program's name.
      count: P.

    Returns:
      The exit code: 0 where all ended well, else that of the process that failed first, 1 where it was killed.
    """
    cores = sorted(os.sched_getaffinity(0))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = [sys.executable, "-m", "cake_jax.cli", *argv, f"--coordinator={coordinator}", f"--num_processes={count}"]
    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryFile("w+") as others:
        try:
            for number in range(count):
                # All say the same; one voice is enough.
                out, err = (None, None) if number == 0 else (subprocess.DEVNULL, others)
                processes.append(subprocess.Popen([*shared, f"--process_id={number}"], stdout=out, stderr=err))
                os.sched_setaffinity(processes[-1].pid, cores[number % len(cores) :: count])
            failed = _first_failure(processes)
            if failed and failed[1] > 0:  # the first process may be saying the same just now
                with contextlib.suppress(subprocess.TimeoutExpired):
                    processes[0].wait(_GRACE_SECONDS)
            told = (processes[0].poll() or 0) > 0
        finally:
            _end(processes)
        if failed is None:
            return 0
        number, code = failed
        others.seek(0)
        said = [line for line in others if line.startswith("error: ")]
    if code < 0:
        print(
            f"error: process {number} of {count} was ended by signal {-code}; the same command goes on from here",
            file=sys.stderr,
        )
        return 1
    if said and not told:
        print(said[0], end="", file=sys.stderr)
    return code


def _first_failure(processes: Sequence[subprocess.Popen]) -> tuple[int, int] | None:
    """Waits for all to end well, or for the first that does not: its number and its exit code."""
    while True:
        codes = [process.poll() for process in processes]
        # Where one was killed, the others may have noticed already: then theirs is not the failure to name.
        failures = sorted((code > 0, number, code) for number, code in enumerate(codes) if code)
        if failures:
            _, number, code = failures[0]
            return number, code
        if None not in codes:
            return None
        time.sleep(_POLL_SECONDS)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Ends those that still run: kindly, then not."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
