"""Command lines of scripts, whose errors are one line each, and the files of their results."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from absl import flags


class Parser(argparse.ArgumentParser):
    """A parser of command lines that reports an error in one line, without the usage."""

    def __init__(self, description: str | None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Prints the message on stderr, and exits with code 2."""
        _exit(message)


def parse_flags(argv: list[str]) -> list[str]:
    """The flags parser for `absl.app.run` that reports an error in one line.

    Args:
      argv: The command line.

    Returns:
      The arguments that are no flags.

    Raises:
      SystemExit: A flag is unknown, or a value does not fit.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _exit(str(error))


def output_file(text: str) -> Path:
    """The type of a flag for a file that a script writes at its end. Its folder is made at once.

    Raises:
      ArgumentTypeError: The folder cannot be made or written to, or the path is that of a folder.
    """
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path.parent}: {error.strerror}") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path.parent}: no permission to write")
    return path


def write_results(path: str | Path | None, **content: Any) -> None:
    """Writes the command line of this process and the content as JSON. Without a path, nothing is written."""
    if path:
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        Path(path).write_text(json.dumps({"command": command, **content}, indent=1) + "\n")


def _exit(message: str) -> NoReturn:
    text = " ".join(message.split())
    print(f"error: {text.rstrip('.')}{'' if 'see --help' in text else '; see --help'}", file=sys.stderr)
    sys.exit(2)
