"""Writes that are complete or nothing, careful reads of files that others may have made, and the cache folder."""

import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

from cake_jax.errors import CakeError, first_line

# The longest text that is read as a whole: a log or an index has less than a kilobyte for each mini-batch.
_LONGEST_TEXT = 2**28
# An archive may unpack to so many times its size, or to so many bytes if that is more. Images and weights stay below.
_UNPACKED_TIMES, _UNPACKED_BYTES = 100, 2**30


def check_regular(path: Path) -> None:
    """Refuses what is no regular file. A FIFO may never answer, and a device may never end.

    Raises:
      FileNotFoundError: There is nothing at `path`.
      CakeError: There is something else than a file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise CakeError(f"{path}: not a regular file")


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
      OSError: The file is missing or cannot be read.
      CakeError: It is no regular file, or longer than a quarter of a gigabyte.
    """
    check_regular(path)
    with open(path, "rb") as file:
        content = file.read(_LONGEST_TEXT + 1)
    if len(content) > _LONGEST_TEXT:
        raise CakeError(f"{path}: longer than {_LONGEST_TEXT:,} bytes")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: The text is no JSON, or its lists are nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
      OSError: The file is missing or cannot be read.
      CakeError: The file is not JSON.
    """
    content = read(path)
    try:
        return parse_json(content)
    except ValueError as error:
        raise CakeError(f"{path}: not JSON: {first_line(error)}") from error


def check_unpacked(name: str | Path, unpacked: int, size: int, mend: str) -> None:
    """Refuses files that unpack to far more than their size.

    Args:
      name: Name of the files, for the message.
      unpacked: Number of bytes to which they unpack.
      size: Their size in bytes.
      mend: The end of the message: what to do.

    Raises:
      CakeError: The files unpack to more than a gigabyte, and to more than 100 times their size.
    """
    if unpacked > max(_UNPACKED_BYTES, _UNPACKED_TIMES * size):
        gigabytes = f"{unpacked / 1e9:.1f} GB"
        raise CakeError(f"{name}: unpacks to {gigabytes}, more than {_UNPACKED_TIMES} times its size; {mend}")


def check_archive(name: str | Path, archive: zipfile.ZipFile, size: int) -> None:
    """Refuses a zip archive of `size` bytes that unpacks to far more.

    Raises:
      CakeError: See `check_unpacked`.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    check_unpacked(name, unpacked, size, "if you trust it, save it without compression")


def leads_outside(path: Path, folder: Path) -> bool:
    """Whether `path`, with all symbolic links followed, lies outside of `folder`."""
    return not path.resolve().is_relative_to(folder.resolve())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if the process dies on the way.

    The caller keeps other processes from writing the file meanwhile.

    Args:
      path: The file. Its folder must exist.
      content: The new content.

    Raises:
      OSError: The write failed, for example because the disk is full. An earlier file at `path` is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # a link in a folder of others might lead anywhere
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Adds a line to a file, completely or not at all. An incomplete last line, which a kill has left, is dropped.

    The caller keeps other processes from writing to the file meanwhile.

    Args:
      path: The file. It is made if it is missing.
      line: The line, with its line break.

    Raises:
      OSError: The write failed, for example because the disk is full, or `path` is a link.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            end = path.read_bytes().rfind(b"\n") + 1
            file.truncate(end)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def cache_folder(name: str) -> Path:
    """The folder `$XDG_CACHE_HOME/cake_jax/<name>`. It is safe to delete at any time.

    If the variable is not set, the folder is under `~/.cache`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cake_jax", name).expanduser()
