"""Files of weights, read without ever running what they hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import deserialize
from safetensors.numpy import save as safetensors_bytes

from cake_jax.files import write_atomically
from cake_jax.types import CakeError, first_line

SAFETENSORS = ".safetensors"
# By the format's names.
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    **{f"{kind}{bits}": f"{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
}
# Under these keys a training script's checkpoint keeps its weights.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Before every name: `DataParallel`, a module that holds the model, `torch.compile`.
_PREFIXES = ("module.", "model.", "_orig_mod.")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file.

    Args:
      path: A safetensors file, whose name ends so; or what `torch.save` wrote of a `state_dict`, which needs PyTorch
        and is unpickled with `weights_only`: tensors and plain containers, no code.

    Returns:
      Float32 arrays by name, as `plain` gives them.

    Raises:
      CakeError: The file is missing, damaged, not one of weights, or would run code; or PyTorch is needed and missing.
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
    except Exception as error:  # what a damaged file raises depends on where the damage is
        raise CakeError(f"{path}: damaged, or no file of weights alone: {first_line(error)}") from error


def plain(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A `state_dict`, or a checkpoint that holds one, as float32 arrays under names without common prefixes.

    Counters of batch norm (`num_batches_tracked`), which evaluation does not need, are left out.

    Args:
      weights: Tensors or arrays by name.

    Returns:
      By name.

    Raises:
      CakeError: There is something else than tensors.
    """
    for key in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(key), Mapping):
            weights = weights[key]
    if not isinstance(weights, Mapping) or not weights:
        raise CakeError(f"weights: {type(weights).__name__} is not a state_dict, tensors by name")
    prefix: str | None = ""
    while prefix is not None:
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None)
    return {name: _array(name, value) for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def write(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file; readers of PyTorch weights are told that they are such.

    Args:
      path: Its name ends in `.safetensors`.
      tensors: By name.
      metadata: Strings by name, beside `format`.

    Raises:
      CakeError: The name ends otherwise.
      OSError: The file cannot be written.
    """
    if Path(path).suffix != SAFETENSORS:
        raise CakeError(f"{path}: name a file that ends in {SAFETENSORS}")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(Path(path), safetensors_bytes(contiguous, {"format": "pt", **metadata}))


def _parse_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """As `safetensors.numpy.load`, and with bfloat16, which that lacks."""
    return {
        name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(content)
    }


def _unpickle_tensors(path: Path) -> Any:
    path.open("rb").close()
    try:
        import torch
    except ImportError as error:
        raise CakeError("needs PyTorch to be read (pip install torch); a safetensors file does not") from error
    return torch.load(path, map_location="cpu", weights_only=True)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        if hasattr(value, "detach"):  # a tensor, which may be on a GPU or of a type that NumPy lacks, such as bfloat16
            value = value.detach().cpu().float().numpy()
        return np.asarray(value, np.float32)
    except Exception as error:
        raise CakeError(f"{name} is no tensor of numbers: {first_line(error)}") from error
