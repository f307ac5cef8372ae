"""A process that imports the package once, and forks a process for each run. It saves the seconds of the imports.

A forked process runs the command line as a process of its own does: it has its own JAX, files, signals and exit code.
`Forks` is the side of the caller; `python forking.py` is the other side. They exchange lines of JSON.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1]


class Forks:
    """Starts command lines of the package in forked processes. A context that ends the process that forks."""

    def __init__(self, environment=()):
        line = [sys.executable, __file__]
        paths = os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", **dict(environment)}
        self._server = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=PACKAGE
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(self, arguments, output, *, saves_always=True, clock=None, broken=""):
        """Starts a command line.

        Args:
          arguments: Its arguments.
          output: File that gets what it prints.
          saves_always: Whether it saves a state after every epoch. Otherwise it does so every two seconds.
          clock: Seconds after the start, and seconds by which `time.time` jumps then. None for no jump.
          broken: Name of a function in `breaks.py` that breaks the package in this process first.

        Returns:
          The process.
        """
        request = {"arguments": list(arguments), "output": str(output)}
        request |= {"saves_always": saves_always, "clock": clock, "broken": broken}
        return Process(self, self.ask(request)["pid"], Path(output))

    def ask(self, request):
        """The answer to one request."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


class Process:
    """A forked process.

    Attributes:
      pid: Its id, which no other process has before `poll` has returned its exit code.
      output: File that gets what it prints.
    """

    def __init__(self, forks, pid, output):
        self.pid, self.output, self._forks, self._code = pid, output, forks, None

    def poll(self):
        """Its exit code, or minus the number of the signal that ended it. None while it works."""
        if self._code is None:
            self._code = self._forks.ask({"poll": self.pid})["code"]
        return self._code

    def wait(self, seconds=300.0):
        """Waits for its end.

        Returns:
          The exit code. None if it still works after this time.
        """
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.poll()

    def signal(self, number):
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kills the process and all processes that it has started, and waits for its end."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    @property
    def text(self):
        """What it has printed."""
        return self.output.read_text(errors="replace")


class ForkedPopen:
    """Replaces `subprocess.Popen` for the processes of one run, which are forked too."""

    def __init__(self, line, stdout, stderr):
        self.returncode, self.pid = None, os.fork()
        if self.pid == 0:
            for stream, number in ((stdout, 1), (stderr, 2)):
                if stream is not None:
                    os.dup2(
                        os.open(os.devnull, os.O_WRONLY) if stream == subprocess.DEVNULL else stream.fileno(), number
                    )
            _forget_flags()
            _end_with_code_of(line[line.index("cake_jax.cli") + 1 :])

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("", timeout)
            time.sleep(0.01)
        return self.returncode

    def terminate(self):
        if self.poll() is None:
            os.kill(self.pid, 15)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, 9)


def _forget_flags():
    """Undoes the reading of the command line of the process that forked this one."""
    from absl.flags import FLAGS

    for name in [name for name in FLAGS if name.startswith("config.")]:
        delattr(FLAGS, name)
    FLAGS.unparse_flags()


def _end_with_code_of(arguments):
    """Runs the command line, and ends this process without a return."""
    from cake_jax.cli import main

    sys.argv = ["run.py", *arguments]
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _prepare(request):
    """Makes the forked process the one that the request describes."""
    from cake_jax.cli import processes
    from cake_jax.report import FIGURES
    from cake_jax.run import saves

    processes.end_with(os.getppid())  # nobody would end it if the tests were killed
    out = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
        os.dup2(source, number)
    if request["saves_always"]:
        saves.SAVE_SECONDS = 0.0
    # All figures would take as long as the run. One is drawn.
    for name in [*FIGURES][1:]:
        del FIGURES[name]
    processes.subprocess = type("Module", (), {**vars(subprocess), "Popen": ForkedPopen})
    if request["clock"]:
        _jump(*request["clock"])
    if request["broken"]:
        getattr(importlib.import_module("breaks"), request["broken"])()


def _jump(after, by):
    """Makes the clock of this process jump: both functions of Python that tell the time of day."""
    clock, nanoseconds, start = time.time, time.time_ns, time.monotonic()

    def shift():
        return by if time.monotonic() - start > after else 0.0

    time.time = lambda: clock() + shift()
    time.time_ns = lambda: nanoseconds() + int(shift() * 1e9)


def _serve():
    """Answers requests until stdin is closed. Returns in a forked process only, with its request."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if pid == 0:
                return request
            os.setpgid(pid, pid)  # a group of its own, which can be killed as a whole
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    sys.exit()


if __name__ == "__main__":
    # A run imports these only when it needs them.
    for name in ("cake_jax.cli", "cake_jax.run.experiment", "cake_jax.report", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)
    importlib.import_module("sklearn.datasets")
    wanted = _serve()
    _prepare(wanted)
    _end_with_code_of(wanted["arguments"])
