"""Decoded images and measured specifications in the user's cache folder, so that later runs start faster.

The cache only saves time. A damaged file counts as missing, and a folder that cannot be written is left alone.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cake_jax.files import cache_folder, read_json, write_atomically
from cake_jax.types import DataSpec, Examples


def path_of(name: str, state: str, suffix: str) -> Path:
    """The path of a cache file.

    Args:
      name: The first part of the file's name.
      state: A text that changes whenever the content must be made anew, such as a path and the times of its files.
      suffix: The suffix of the file's name, without a dot.
    """
    return cache_folder("data") / f"{name}-{hashlib.sha256(os.fsencode(state)).hexdigest()[:16]}.{suffix}"


def examples(path: Path, count: int, rows: np.ndarray, decode: Callable[[], Examples]) -> Examples:
    """Some of the `count` decoded images and their labels, from a cache file.

    If the file is missing or damaged, or has another number of images, `decode` makes the images and labels of the
    rows. If these are all rows, they are cached.
    """
    # A damaged file may raise any error. NumPy does not close one that it opened itself.
    with contextlib.suppress(Exception), open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
        if len(images) == len(labels) == count:
            return images[rows], labels[rows]
    images, labels = decode()
    if np.array_equal(rows, np.arange(count)):
        content = io.BytesIO()
        np.savez(content, images=images, labels=labels)
        _write(path, content.getvalue())
    return images, labels


def spec(path: Path, measure: Callable[[], DataSpec]) -> DataSpec:
    """The specification in a cache file. If that is missing or damaged, calls `measure` and caches its result."""
    try:
        return DataSpec.from_dict(read_json(path))
    except (OSError, ValueError, TypeError, AttributeError):
        found = measure()
        _write(path, json.dumps(found.to_dict()).encode())
        return found


def _write(path: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # no home folder, or a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
