"""Whole-file writes, and the cache folder."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if the process dies on the way.

    Args:
      path: The file. Its folder must exist.
      content: The new content.

    Raises:
      OSError: The write failed, for example because the disk is full. An earlier file at `path` is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder(name: str) -> Path:
    """The folder `$XDG_CACHE_HOME/cake_jax/<name>`. It is safe to delete at any time.

    If the variable is not set, the folder is under `~/.cache`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cake_jax", name).expanduser()
