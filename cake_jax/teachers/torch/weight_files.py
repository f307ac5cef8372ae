"""Reads and writes files of weights. Reading never runs code from a file."""

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import deserialize
from safetensors.numpy import save as safetensors_bytes

from cake_jax.files import write_atomically
from cake_jax.types import CakeError, first_line

SAFETENSORS = ".safetensors"
# NumPy's types by the names of the safetensors format.
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    **{f"{kind}{bits}": f"{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
}
# Keys under which training scripts save a state_dict in a checkpoint. If there are several, the first one counts.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "state_dict_ema", "model_ema")
# The part of PyTorch's message that names the type of an object that it refuses to load.
_REFUSED = re.compile(r"(GLOBAL|class|function) (?P<type>[\w.]+)")
# Counters of batch norm, and of a moving average of weights. Evaluation needs neither.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file.

    Args:
      path: A file that ends in `.safetensors`, or a `state_dict` that `torch.save` wrote. The latter needs PyTorch. It
        is unpickled with `weights_only`, which allows tensors and plain containers but no code.

    Returns:
      A dict from names to float32 arrays, as `plain` returns it.

    Raises:
      CakeError: The file is missing or damaged, holds other things than weights, or needs PyTorch, which is missing.
    """
    path = Path(path)
    try:
        if path.suffix == SAFETENSORS:
            return plain(_parse_safetensors(path.read_bytes()))
        return plain(_unpickle_tensors(path))
    except FileNotFoundError as error:
        raise CakeError(f"{path}: no such file") from error
    except CakeError as error:
        raise CakeError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file may raise any error
        raise CakeError(f"{path}: damaged, or not a file of weights only: {first_line(error)}") from error


def plain(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts a `state_dict`, or a checkpoint that holds one, to float32 arrays.

    A dict with a single entry is unwrapped, whatever its key. Counters are left out.

    Args:
      weights: A dict from names to tensors or arrays.

    Returns:
      A dict from names to float32 arrays.

    Raises:
      CakeError: `weights` is empty or no dict, or a value is not a tensor.
    """
    weights = _unwrapped(weights)
    if not isinstance(weights, Mapping) or not weights:
        raise CakeError(f"weights: {type(weights).__name__} is not a state_dict, a dict from names to tensors")
    return {name: _array(name, value) for name, value in weights.items() if not str(name).endswith(_COUNTERS)}


def without_prefix(tensors: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
    """Removes the prefix with which most of `names` occur, such as `module.` or `backbone.1.`.

    Args:
      tensors: A dict from names to arrays.
      names: The names of an architecture's tensors.

    Returns:
      The dict with shorter names. A name that does not begin with the prefix stays.
    """
    ends = sorted(names)
    prefixes = {name.removesuffix(end) for end in ends[:1] for name in tensors if name.endswith(f".{end}")}
    prefix = max(["", *sorted(prefixes)], key=lambda prefix: sum(prefix + name in tensors for name in names))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _unwrapped(weights: Any) -> Any:
    """The innermost dict of a checkpoint that holds the weights."""
    while isinstance(weights, Mapping):
        inner = [weights[key] for key in _WRAPPERS if isinstance(weights.get(key), Mapping)]
        if len(weights) == 1:
            inner += [value for value in weights.values() if isinstance(value, Mapping)]
        if not inner:
            break
        weights = inner[0]
    return weights


def write(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file with the metadata `format: pt`, so that readers accept it as PyTorch weights.

    Args:
      path: File to write. Its name ends in `.safetensors`.
      tensors: A dict from names to tensors.
      metadata: A dict from names to strings, added to `format`.

    Raises:
      CakeError: The file's name has another ending.
      OSError: The file cannot be written.
    """
    if Path(path).suffix != SAFETENSORS:
        raise CakeError(f"{path}: the file name must end in {SAFETENSORS}")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(Path(path), safetensors_bytes(contiguous, {"format": "pt", **metadata}))


def _parse_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Does what `safetensors.numpy.load` does, and reads bfloat16, which that function does not."""
    return {
        name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(content)
    }


def _unpickle_tensors(path: Path) -> Any:
    path.open("rb").close()
    try:
        import torch
    except ImportError as error:
        raise CakeError("reading it needs PyTorch (pip install torch); a safetensors file does not") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        raise CakeError(
            f"holds an object of {found['type']}, and such an object could run code; save the weights alone: "
            "torch.save(network.state_dict(), 'weights.pt')"
        ) from None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        if hasattr(value, "detach"):  # a tensor, possibly on a GPU or of a type that NumPy lacks
            value = value.detach().cpu().float().numpy()
        return np.asarray(value, np.float32)
    except Exception as error:
        raise CakeError(f"{name} is not a tensor of numbers: {first_line(error)}") from error
