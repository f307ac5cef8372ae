"""What was found out about data sets, kept in the user's cache folder so that no later run does it again.

A file that is damaged is as good as none, and so is a folder that cannot be written: both only cost time.
"""

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cake_jax.files import cache_folder, write_atomically
from cake_jax.types import DataSpec, Examples


def path_of(name: str, state: str, suffix: str) -> Path:
    """Where something is kept that holds as long as `state`, such as a folder's path and the times of its files."""
    return cache_folder("data") / f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.{suffix}"


def examples(path: Path, count: int) -> Examples | None:
    """The images and labels that `keep_examples` wrote; None where they are not there, damaged, or not `count`."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:  # NumPy leaves a bad one open
            images, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return None
    return (images, labels) if len(images) == len(labels) == count else None


def keep_examples(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Keeps decoded images and their labels, if it can."""
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels)
    _keep(path, content.getvalue())


def spec(path: Path, measure: Callable[[], DataSpec]) -> DataSpec:
    """What `measure` returns, asked only where an earlier answer is not there or damaged."""
    try:
        return DataSpec.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError):
        found = measure()
        _keep(path, json.dumps(found.to_dict()).encode())
        return found


def _keep(path: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # no home, or a full one
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
