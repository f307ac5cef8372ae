"""Several runs, each in a process of its own. The scripts that start or compare several runs share this module."""

import argparse
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from cake_jax import checks, config as config_lib, data, stopping
from cake_jax.arguments import Parser, output_file, write_results
from cake_jax.cli import command_line, grid
from cake_jax.report import Record
from cake_jax.report.side_by_side import FinishedRun
from cake_jax.report.tables import run_figures
from cake_jax.run.run_folder import (
    METRICS,
    RESULTS,
    finished_results,
    flat,
    load_run,
    saved_config,
    saved_data,
    saved_results,
)
from cake_jax.stores.metrics import MetricsLog
from cake_jax.types import CakeError, CakeWarning

# Flags of the command `cake-jax` that a script passes on to its runs, besides those of the config.
_FLAGS_OF_RUNS = ("cpu_devices", "overwrite", "nooverwrite", "processes", "quiet", "noquiet")

_POLL_SECONDS = 0.2
# Runs on several devices are started by several threads.
_loading = threading.Lock()


class Job(NamedTuple):
    """A run that has to be made.

    Attributes:
      config: Config file, with a variant after a colon.
      folder: Folder of the run.
      arguments: Further arguments of the command line.
    """

    config: str
    folder: Path
    arguments: Sequence[str]


def parser(description: str) -> Parser:
    """A parser with the flags of all scripts that start runs. A script adds its own, and calls `known_flags`.

    Args:
      description: The script's docstring, for `--help`.
    """
    made = Parser(description)
    made.add_argument("--config", required=True, help="config file of the runs")
    made.add_argument("--workdir", type=Path, help="folder of the runs")
    made.add_argument("--out", type=output_file, help="JSON file for the results of all runs")
    made.add_argument("--figure", type=output_file, help="PNG file for the figure")
    devices = "GPUs with one run at a time on each, as in CUDA_VISIBLE_DEVICES"
    made.add_argument("--devices", default="", type=grid.split, help=devices)
    return made


def known_flags(parser: Parser) -> tuple[argparse.Namespace, list[str]]:
    """The values of a script's own flags, and all other arguments, for each run.

    Raises:
      SystemExit: A flag is unknown or misses its value, or is the seed, which the script sets. One line says so.
    """
    flags, others = parser.parse_known_args()
    for argument in others:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and not name.startswith("config.") and name not in _FLAGS_OF_RUNS:
            similar = checks.did_you_mean(name, (*vars(flags), *_FLAGS_OF_RUNS))
            parser.error(f"'{argument}' is no flag; see --help{similar}")
        if name == "config.seed" and {"seeds", "models"} & vars(flags).keys():
            parser.error(f"--config.seed: this script sets it{'; use --seeds' if 'seeds' in flags else ''}")
    return flags, others


def run(
    config: str, workdir: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a config to its end. An unfinished run is resumed. For a finished one, no process is started.

    Args:
      config: Config file, with a variant after a colon.
      workdir: Folder of the run.
      arguments: Further arguments of the command line.
      environment: Variables of the environment that the run gets besides those of this process.

    Returns:
      The content of `results.json`.

    Raises:
      SystemExit: The run failed. The message is one line that contains the command of the failed run.
      Stopped: This process has received SIGTERM. If the run had begun, it has received it too, and has ended.
    """
    stopping.stop_if_asked()
    done = _finished(config, workdir, arguments)
    if done is not None:
        print(f"{workdir} holds the finished run of this config; nothing to do", flush=True)
        return done
    command = [sys.executable, "-m", "cake_jax.cli", f"--config={config}", f"--workdir={workdir}", *arguments]
    code = _call(command, {**os.environ, **(environment or {})})
    results = None if code else saved_results(workdir)
    if results is None:
        sys.exit(f"error: this run failed: {shlex.join(command)}")
    return results


def _call(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command, passes SIGTERM on to it, and returns its exit code.

    Raises:
      Stopped: This process has received SIGTERM. The command has ended.
    """
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None and not stopping.is_asked():
            time.sleep(_POLL_SECONDS)
        if stopping.is_asked():
            process.terminate()
    stopping.stop_if_asked()
    return process.returncode


def _finished(config: str, workdir: Path, arguments: Sequence[str]) -> dict[str, Any] | None:
    """The results of a finished run. None if it has to be made, or if its own process should say what is wrong.

    The config file is run in any case: what it registers, such as a model, is needed to load the run. No device is
    used, because the runs need them.
    """
    try:
        with _loading, warnings.catch_warnings():
            warnings.simplefilter("ignore", CakeWarning)
            values = command_line.config_of(config, arguments)
            overwrites = any(argument.lstrip("-").partition("=")[0] == "overwrite" for argument in arguments)
            # With views, the epochs of a baseline and the budget of a black box depend on the number of devices.
            needs_devices = values.run.baseline or values.black_box.answers
            if overwrites or needs_devices or saved_results(workdir) is None:
                return None
            return finished_results(workdir, config_lib.resolve(values, workdir).document)
    except Exception:  # config files raise errors of any type
        return None


def run_all(jobs: Sequence[Job], devices: Sequence[str] = ("",)) -> Iterator[dict[str, Any] | str]:
    """Makes runs, one at a time on each device.

    Args:
      jobs: The runs.
      devices: GPUs, as in CUDA_VISIBLE_DEVICES. An empty name leaves the choice to JAX.

    Yields:
      For each job in order the content of `results.json`, or the message of its failure.

    Raises:
      SystemExit: This process has received SIGTERM, which it has passed on, or Ctrl-C. The exit code is 143 or 130.
    """
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for device in devices:
        free.put(device)

    def run_one(job: Job) -> dict[str, Any] | str:
        device = free.get()
        # Bars of several runs would overwrite each other.
        quiet = ["--quiet"] if len(devices) > 1 else []
        try:
            visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
            return run(job.config, job.folder, [*job.arguments, *quiet], visible)
        except (SystemExit, CakeError) as failure:
            return str(failure)
        finally:
            free.put(device)

    with stopping.on_sigterm(stopping.WAIT_SECONDS):
        try:
            with ThreadPoolExecutor(len(devices)) as pool:
                yield from pool.map(run_one, jobs)
            stopping.stop_if_asked()
        except stopping.Stopped:
            print(stopping.MESSAGE, file=sys.stderr)
            sys.exit(stopping.EXIT_CODE)
        except KeyboardInterrupt:
            print(stopping.INTERRUPTED_MESSAGE, file=sys.stderr)
            sys.exit(stopping.INTERRUPTED_CODE)


def end(results: Iterable[dict[str, Any] | str]) -> None:
    """Ends the script with the messages of the failed runs, if any.

    Args:
      results: Values of `run_all`.
    """
    if failures := [one for one in results if isinstance(one, str)]:
        sys.exit("\n".join(failures))


def default_folder(kind: str, config: str) -> Path:
    """The folder of the runs of a script if the user names none: `runs/<kind>-<config name>[-<variant>]`."""
    path, _, variant = config.partition(":")
    return Path("runs", "-".join(filter(None, (kind, Path(path).stem, variant))))


def record(folder: Path) -> Record:
    """Loads a finished run. The real data are loaded for 2-dimensional inputs only.

    Raises:
      CakeError: The folder holds no run, or something in it is damaged.
    """
    logging.set_verbosity(logging.ERROR)
    loaded = load_run(folder)
    spec, settings = loaded.teacher and loaded.teacher.spec, saved_data(folder)
    dataset = data.load(settings, spec) if spec and spec.shape == (2,) and settings.name != "none" else None
    log = MetricsLog(folder / METRICS)
    return Record(folder, loaded.results or {}, log, loaded.teacher, loaded.student, loaded.samples, dataset)


def finished(folders: Sequence[str | Path]) -> list[FinishedRun]:
    """Loads finished runs, each with the shortest end of its path as its name.

    Raises:
      CakeError: A folder holds no finished run, or two folders are the same.
    """
    paths = [Path(folder) for folder in folders]
    ends = [path.resolve().parts for path in paths]
    if len(set(ends)) < len(ends):
        raise CakeError("two of the folders are the same")
    loaded = []
    for path, parts in zip(paths, ends, strict=True):
        results = saved_results(path)
        if results is None:
            raise CakeError(f"{path} holds no finished run")
        size = next(
            size for size in range(1, len(parts) + 1) if [end[-size:] for end in ends].count(parts[-size:]) == 1
        )
        settings = dict(flat(saved_config(path)))
        try:
            run_figures(results)
            checks.kind("warnings", results.get("warnings", []), list, "a list")
            for sign in results.get("warnings", []):
                checks.kind("warnings", sign, str, "a text")
        except CakeError as error:
            raise CakeError(f"{path / RESULTS}: {error}") from error
        loaded.append(FinishedRun("/".join(parts[-size:]), path, settings, results))
    return loaded


def write(path: Path, runs: list[dict[str, Any]]) -> None:
    """Writes the command line of this process and the results of its runs, without their own commands, as JSON."""
    kept = [
        {**run, "environment": {name: value for name, value in run["environment"].items() if name != "command"}}
        for run in runs
    ]
    write_results(path, runs=kept)
