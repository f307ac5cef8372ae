"""The command line: `python scripts/run.py`, and `cake-jax` if the package is installed."""

import contextlib
import errno
import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import config_flags

from cake_jax import checks, config as config_lib, parallel, stopping
from cake_jax.cli import command_line, processes, shipped_configs
from cake_jax.files import cache_folder
from cake_jax.run.run_folder import flat
from cake_jax.types import CakeError, CakeWarning, first_line

_show_other_warning = warnings.showwarning
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, or the name of a shipped config, with a variant after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; by default runs/<config name>[-<variant>].")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run of another config in the folder.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print errors, warnings and the path of the report only.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what the run would do and cost, and do nothing.")
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the config with all its fields, and do nothing.")
_WRONG_VALUE = re.compile(
    r"flag --(?P<name>[\w.]+)=(?P<value>.*): (invalid literal for |could not convert string to |\('Non-)"
    r"(?P<kind>int|float|boolean).*",
    re.S,
)
# Errors of a disk that is full, or of a file that must not be read or written.
_NO_ACCESS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_HELP_FULL = flags.DEFINE_bool("helpfull", False, "The same as --help.")
_HELP = flags.DEFINE_bool("help", False, "List the flags, and do nothing.", short_name="h")
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", 0, "CPU cores to use as devices; 0 for all usable ones.", lower_bound=0
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 0, "Processes to start on this machine, which share its CPU cores.", lower_bound=0
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "Join several processes: host:port of process 0, or 'auto' on a cluster that JAX knows."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "With --coordinator: number of processes.", lower_bound=1)
_LAUNCHER = flags.DEFINE_integer("launcher", 0, "Set by --processes: id of the process that started this one.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "With --coordinator: this process's number, from 0.", lower_bound=0)


def main() -> None:
    """Runs the command line of this process, and exits.

    The exit code is 0; 2 for wrong arguments; 1 for an error of the run; 130 if the user stops it; 143 if SIGTERM stops
    it. Each error is one line on stderr.
    """
    with stopping.on_sigterm():
        sys.exit(_run(sys.argv))


def _run(argv: list[str]) -> int:
    given = argv
    try:
        given = shipped_configs.with_paths(argv)
        rest, options = command_line.without_model_options(given)
        sys.argv = rest  # config_flags reads the overrides from here
        unknown = flags.FLAGS(rest)[1:]
        if unknown:
            raise CakeError(f"'{unknown[0]}' is no flag; see --help")
        if _HELP.value or _HELP_FULL.value:
            print(flags.FLAGS.module_help(flags.FLAGS.find_module_defining_flag("help")))
            return 0
        if _CONFIG.value is None:
            raise CakeError("name a config: --config=digits; see --help")
        command_line.set_model_options(_CONFIG.value, options)
        config_lib.check_fields(_CONFIG.value)
    except Exception as error:  # absl and config files raise errors of any type
        known = _unknown_field(argv, error) or _wrong_value(error)
        known = known or (None if isinstance(error, CakeError) else _missing_file(given))
        return _fail(known or _error_of_config_file(error), 2)
    try:
        if _PROCESSES.value:
            return processes.launch([*argv[1:], "--processes=0"], _PROCESSES.value)
        if _LAUNCHER.value:
            processes.end_with(_LAUNCHER.value)
        logging.set_verbosity(logging.FATAL)  # Orbax logs tracebacks of the errors that it raises
        warnings.showwarning = _show_warning
        sys.unraisablehook = _show_unraisable
        jax.config.update("jax_num_cpu_devices", _CPU_DEVICES.value or len(parallel.usable_cores()))
        _keep_compiled_programs()
        if _PRINT_CONFIG.value:
            print(_CONFIG.value.to_json_best_effort(indent=1))
        elif _DRY_RUN.value:
            from cake_jax.run import dry_run

            print(dry_run.describe(config_lib.resolve(_CONFIG.value)))
        else:
            from cake_jax.run import experiment

            if _COORDINATOR.value:
                parallel.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
            name, variant = _names()
            workdir = _WORKDIR.value or Path("runs", "-".join(filter(None, (name, variant))))
            settings = config_lib.resolve(_CONFIG.value, None if _OVERWRITE.value else workdir)
            names = {"config_name": name, "variant": variant}
            experiment.run(settings, workdir, **names, overwrite=_OVERWRITE.value, quiet=_QUIET.value)
    except (CakeError, OSError, MemoryError) as error:
        code = _fail(_with_advice(error), 1)
        if _COORDINATOR.value and jax.process_count() > 1:
            # The error may be that of this process alone. JAX would wait at the exit for the others, which wait for it.
            sys.stderr.flush()
            os._exit(code)
        return code
    except stopping.Stopped:
        if not _LAUNCHER.value:
            print(stopping.MESSAGE, file=sys.stderr, flush=True)
        if jax.process_count() > 1:
            # If one process ends, JAX ends the others. So each waits until all have saved, or until its time is over.
            with contextlib.suppress(Exception):
                parallel.wait_for_all("stopped")
            os._exit(stopping.EXIT_CODE)
        return stopping.EXIT_CODE
    except Exception as error:
        if jax.process_count() == 1:
            raise
        # If one process is lost, the others fail wherever they wait for it. They would wait for it again at their exit.
        print(f"stopped: another process of this run may have been lost ({first_line(error)})", file=sys.stderr)
        os._exit(1)
    except KeyboardInterrupt:
        if not _LAUNCHER.value:
            print(stopping.INTERRUPTED_MESSAGE, file=sys.stderr)
        if _COORDINATOR.value and jax.process_count() > 1:
            os._exit(stopping.INTERRUPTED_CODE)  # JAX would wait at the exit for the other processes
        return stopping.INTERRUPTED_CODE
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
    """Shows a `CakeWarning` as one line, without its place in the code."""
    if not issubclass(category, CakeWarning):
        _show_other_warning(message, category, *place, **options)
    elif parallel.is_first():
        print(f"note: {message}", file=sys.stderr)


def _show_unraisable(unraisable: Any) -> None:
    """Shows an error that no code can catch, unless it follows from one that `stores.checkpoint` raises.

    If a checkpoint cannot be written, Orbax closes its event loop. TensorStore's threads may still report to it.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _keep_compiled_programs() -> None:
    """Keeps compiled programs for the next run, unless the user has set a folder for them."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        # Programs are compiled for one machine, but several machines may share a home folder.
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("compiled") / platform.node()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _names() -> tuple[str, str]:
    """Name of the config file, and of its variant."""
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path(path).stem, variant


def _wrong_value(error: Exception) -> CakeError | None:
    """The error of a flag whose value has another type. absl shows the message of a Python function."""
    found = _WRONG_VALUE.fullmatch(str(error))
    if found is None:
        return None
    kind = {"int": "a whole number", "float": "a number", "boolean": "true or false"}[found["kind"]]
    return CakeError(f"{found['name']}: '{found['value']}' is not {kind}")


def _unknown_field(argv: list[str], error: Exception) -> CakeError | None:
    """The error of an override whose field does not exist. config_flags names only a part of the field."""
    message = str(error).replace("\\", "")
    names = [arg.lstrip("-").partition("=")[0] for arg in argv]
    for name in names:
        is_named = any(f"'{part}'" in message for part in (name.removeprefix("config."), *name.split(".")[1:]))
        if name.startswith("config.") and is_named:
            fields = [f"config.{field}" for field, _ in flat(config_lib.default().to_dict())]
            return CakeError(f"{name}: no such field; --print_config lists them{checks.did_you_mean(name, fields)}")
    return None


def _missing_file(argv: list[str]) -> CakeError | None:
    """The error that the config file does not exist."""
    values = [
        value for name, _, value in (argument.partition("=") for argument in argv) if name.lstrip("-") == "config"
    ]
    path = Path(values[-1].partition(":")[0]) if values else None
    if path is None or path.exists():
        return None
    return CakeError(f"config: there is no file {path}{checks.did_you_mean(path, map(str, path.parent.glob('*.py')))}")


def _error_of_config_file(error: BaseException) -> BaseException:
    """The error that a config file raised. config_flags wraps it in an error whose message is a traceback."""
    if "Traceback" not in str(error):
        return error
    while "Traceback" in str(error) and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__ or error
    return error if isinstance(error, CakeError) else CakeError(f"config: {type(error).__name__}: {first_line(error)}")


def _with_advice(error: BaseException) -> BaseException:
    """The error with what to do, if it says that the disk is full, or that a file cannot be read or written."""
    if not isinstance(error, OSError) or error.errno not in _NO_ACCESS:
        return error
    name = error.filename or _WORKDIR.value or "the run's folder"
    return CakeError(f"{name}: {error.strerror}; free space or change the permissions, and run the same command again")


def _fail(error: BaseException, code: int) -> int:
    print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return code
