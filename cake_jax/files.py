"""Files that are either there as a whole or not at all, and the folder of what can be made again."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either there as a whole or not at all, whenever the process dies.

    Raises:
      OSError: The disk is full, say; what was at `path` before is untouched.
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
    """`$XDG_CACHE_HOME/cake_jax/<name>`, by default under `~/.cache`: safe to delete at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cake_jax", name).expanduser()
