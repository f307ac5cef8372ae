"""Every use of several devices and processes: the one module to change when `pmap` gives way to `shard_map`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = "devices"
# A process that a cluster has lost is missed after this long.
_HEARTBEAT_SECONDS = 30


def device_count() -> int:
    """Number D of devices of this process, which its own work is spread over."""
    return jax.local_device_count()


def total_device_count() -> int:
    """Number of devices of all processes."""
    return jax.device_count()


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several, before JAX has touched a device.

    Args:
      coordinator: Address `host:port` of process 0; `auto` for what JAX finds out on clusters that it knows.
      num_processes: P; unused with `auto`, like the next.
      process_id: 0 to P - 1.
    """
    if coordinator == "auto":
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    else:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)


def is_first() -> bool:
    """Whether this process is the one that writes what there is one of."""
    return jax.process_index() == 0


def wait_for_all(place: str) -> None:
    """Returns when all processes have come to this place, which has a name of its own."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def as_first(value: bool) -> bool:
    """The value that the first process has."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value))) if jax.process_count() > 1 else value


def own_share(items: Sequence) -> Sequence:
    """This process's items of a sequence that all processes have: dealt out one by one."""
    return items[jax.process_index() :: jax.process_count()]


def own_devices() -> list[int]:
    """Places of this process's devices among those of all processes."""
    return [place for place, device in enumerate(jax.devices()) if device.process_index == jax.process_index()]


def map_devices(function: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
    """Compiles `function` to run on every device of this process at once.

    Args:
      function: Takes and returns pytrees of arrays; may reduce over the axis name `AXIS`.
      in_axes: One for each argument: 0 where its leaves have a leading axis `[D, ...]`, one slice a device; None where
        all devices take the same.
      out_axes: The same for the results; None only where all devices compute the same.

    Returns:
      A function of the same arguments, positional only.
    """
    devices = jax.local_devices() if jax.process_count() > 1 else None
    return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=out_axes, devices=devices)


def map_all_devices(function: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
    """`map_devices` over the devices of all processes, each of which gives the slices of its own devices.

    All processes must call it alike and in the same order.
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
