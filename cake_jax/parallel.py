"""Every use of several devices: the one module to change when `pmap` gives way to `shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

AXIS = "devices"


def device_count() -> int:
    """Number D of local devices that work is spread over."""
    return jax.local_device_count()


def map_devices(function: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
    """Compiles `function` to run on every device at once.

    Args:
      function: Takes and returns pytrees of arrays; may reduce over the axis name `AXIS`.
      in_axes: One for each argument: 0 where its leaves have a leading axis `[D, ...]`, one slice a device; None where
        all devices take the same.
      out_axes: The same for the results; None only where all devices compute the same.

    Returns:
      A function of the same arguments, positional only.
    """
    return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=out_axes)


def deal(count: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Deals rows 0 to count - 1 out to the devices in chunks of equal size.

    Args:
      count: Number of rows, at least 1; the devices need not divide it.
      chunk: Rows c of a chunk.

    Returns:
      Row numbers `[D, n, c]` int32, each device with n chunks, and a mask `[D, n, c]` that is False for the padding,
      which repeats the last row. Rows keep their order, so that `gather` undoes it.
    """
    chunks = -(-count // (chunk * device_count()))
    position = np.arange(device_count() * chunks * chunk, dtype=np.int32).reshape(device_count(), chunks, chunk)
    return np.minimum(position, count - 1), position < count


def gather(tree: Any, count: int) -> Any:
    """Leaves `[D, n, c, ...]`, dealt out by `deal`, to their rows `[count, ...]` in order, as NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[3:])[:count], tree)
