"""Work on several devices and processes. If `pmap` gives way to `shard_map`, only this module changes."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cake_jax.errors import CakeError, first_line

AXIS = "devices"
# After this time without a sign of life, a process counts as lost.
_HEARTBEAT_SECONDS = 30


def usable_cores() -> list[int]:
    """The numbers of the CPU cores that this process may use. All cores, on systems that cannot bind a process."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def device_count() -> int:
    """The number D of devices of this process."""
    return jax.local_device_count()


def device_memory() -> int | None:
    """Bytes that JAX may allocate on one device of this process. None if the device does not report them."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def total_device_count() -> int:
    """The number of devices of all processes."""
    return jax.device_count()


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several. Call it before JAX uses a device.

    Args:
      coordinator: Address `host:port` of process 0. With `auto`, JAX finds the processes, on clusters that it knows.
      num_processes: The number P of processes. Unused with `auto`.
      process_id: This process's number, from 0 to P - 1. Unused with `auto`.

    Raises:
      CakeError: The address has no port, the number is not below P, or JAX does not know the cluster.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from `stopping`
    given: dict[str, Any] = {"heartbeat_timeout_seconds": _HEARTBEAT_SECONDS}
    if coordinator != "auto":
        if not re.fullmatch(r".+:\d+", coordinator):
            raise CakeError(f"coordinator: '{coordinator}' must be host:port or auto")
        if process_id >= num_processes:
            raise CakeError(f"process_id: {process_id} must be below num_processes, {num_processes}")
        given |= {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    try:
        jax.distributed.initialize(**given)
    except ValueError as error:
        message = f"coordinator: JAX finds no processes with '{coordinator}': {first_line(error)}; give host:port"
        raise CakeError(message) from error


def is_first() -> bool:
    """Whether this is process 0, which alone writes the files that all processes share."""
    return jax.process_index() == 0


def wait_for_all(place: str) -> None:
    """Returns when all processes have reached this place in the program. Each place has its own name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def as_first(value: bool) -> bool:
    """The value of process 0, in every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value))) if jax.process_count() > 1 else value


def in_any(value: bool) -> bool:
    """Whether the value is true in at least one process. All processes return the same."""
    return bool(each_in_any([value])[0])


def each_in_any(values: Sequence[bool]) -> np.ndarray:
    """For each of the values, `[n]` bool, whether it is true in at least one process. All processes return the same."""
    own = np.asarray(values, bool)
    return multihost_utils.process_allgather(own).any(axis=0) if own.size and jax.process_count() > 1 else own


def own_share(items: Sequence) -> Sequence:
    """This process's share of a sequence that all processes have: process p of P takes items p, p + P, p + 2 P ..."""
    return items[jax.process_index() :: jax.process_count()]


def own_devices() -> list[int]:
    """The positions of this process's devices in the list of all devices."""
    return [place for place, device in enumerate(jax.devices()) if device.process_index == jax.process_index()]


def map_devices(function: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
    """Compiles `function` to run on every device of this process at once.

    Args:
      function: Takes and returns pytrees of arrays. It may reduce over the axis name `AXIS`.
      in_axes: One entry for each argument. 0: the leaves have a leading axis `[D, ...]`, one slice for each device.
        None: all devices take the same leaves.
      out_axes: The same for the results. None is allowed only if all devices compute the same result.

    Returns:
      A function of the same arguments, positional only.
    """
    devices = jax.local_devices() if jax.process_count() > 1 else None
    return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=out_axes, devices=devices)


def map_all_devices(function: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
    """Compiles `function` to run on the devices of all processes at once, as `map_devices` does for one process.

    Each process passes the slices of its own devices. All processes must make the same calls in the same order.
    """
    return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=out_axes)


def replicate(tree: Any) -> Any:
    """Copies a pytree of arrays to every device of this process, where mapped functions leave their results.

    A mapped function is compiled once more for arguments in another place, such as its own results.
    """
    return jax.device_put(tree, NamedSharding(Mesh(jax.local_devices(), (AXIS,)), PartitionSpec()))


def mean(tree: Any) -> Any:
    """The mean of a pytree over the devices, within a function that `map_devices` or `map_all_devices` runs.

    All leaves travel as one vector, because the devices wait for each other in every exchange.
    """
    if lax.axis_size(AXIS) == 1:
        return tree
    vector, restore = ravel_pytree(tree)
    return restore(lax.pmean(vector, AXIS))


def deal(count: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows 0 to count - 1 among the devices, in chunks of equal size.

    Args:
      count: Number of rows, at least 1. It need not be a multiple of the number of devices.
      chunk: Number c of rows in a chunk.

    Returns:
      Row numbers `[D, n, c]` int32, n chunks for each device, and a mask `[D, n, c]`. The mask is False for padding,
      which repeats the last row. Rows keep their order, so `gather` is the inverse.
    """
    chunks = -(-count // (chunk * device_count()))
    position = np.arange(device_count() * chunks * chunk, dtype=np.int32).reshape(device_count(), chunks, chunk)
    return np.minimum(position, count - 1), position < count


def gather(tree: Any, count: int) -> Any:
    """Reverses `deal`: leaves `[D, n, c, ...]` become NumPy arrays `[count, ...]` in the order of the rows."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[3:])[:count], tree)
