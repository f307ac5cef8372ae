"""Reads and writes files of weights. Reading never runs code from a file."""

import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import deserialize
from safetensors.numpy import save as safetensors_bytes

from cake_jax.files import check_archive, check_regular, write_atomically
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
# Dicts within dicts of a checkpoint. A pickled dict may hold itself.
_MOST_WRAPPERS = 10
# The part of PyTorch's message that names the type of an object that it refuses to load.
_REFUSED = re.compile(r"(GLOBAL|class|function) (?P<type>[\w.]+)")
_SAVE = "save the weights alone: torch.save(network.state_dict(), 'weights.pt')"
# The first version of PyTorch that runs no code from a file with `weights_only`.
_SAFE_TORCH = (2, 6)
# Counters of batch norm, and of a moving average of weights. Evaluation needs neither.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def read(weights: str | Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the tensors of a file, or of a `state_dict`.

    Args:
      weights: A file that ends in `.safetensors`, a file that `torch.save` wrote, or a dict. The second needs PyTorch.
        It is unpickled with `weights_only`, which allows tensors and plain containers but no code. The dict is a
        `state_dict`, or a checkpoint that holds one.

    Returns:
      A dict from names to float32 arrays, without counters.

    Raises:
      CakeError: The file is missing or damaged, holds other things than weights, or needs PyTorch, which is missing.
    """
    source = "weights" if isinstance(weights, Mapping) else str(weights)
    if not isinstance(weights, Mapping):
        _check_file(Path(weights))
    try:
        return _plain(weights if isinstance(weights, Mapping) else _content(Path(weights)))
    except CakeError as error:
        raise CakeError(f"{source}: {error}") from error
    except Exception as error:  # a damaged file may raise any error
        raise CakeError(f"{source}: damaged, or not a file of weights only: {first_line(error)}") from error


def without_prefix(tensors: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
    """Removes the prefix with which most of `names` occur, such as `module.` or `backbone.1.`.

    Args:
      tensors: A dict from names to arrays.
      names: The names of an architecture's tensors.

    Returns:
      The dict with shorter names. A name stays if it does not begin with the prefix, or if the shorter name is there
      already.
    """
    cuts = ((name, cut.end()) for name in tensors for cut in re.finditer(r"^|\.", name))
    prefixes = Counter(name[:cut] for name, cut in cuts if name[cut:] in names)
    prefix = max(prefixes, key=lambda prefix: prefixes[prefix], default="")
    short = {name: name.removeprefix(prefix) for name in tensors}
    return {name if short[name] in tensors else short[name]: tensor for name, tensor in tensors.items()}


def _plain(weights: Any) -> dict[str, np.ndarray]:
    """The tensors of a `state_dict`, or of a checkpoint that holds one, as float32 arrays."""
    weights = _unwrapped(weights)
    if not isinstance(weights, Mapping) or not weights:
        found = "an empty dict" if isinstance(weights, Mapping) else f"a value of type {type(weights).__name__}"
        raise CakeError(f"holds {found} instead of a state_dict, a dict from names to tensors")
    parts = [str(name) for name, value in weights.items() if isinstance(value, Mapping)]
    if parts:
        raise CakeError(
            f"none of its parts ({', '.join(parts[:3])}) is clearly the state_dict; save the part with the weights "
            "alone"
        )
    return {str(name): _array(name, value) for name, value in weights.items() if not str(name).endswith(_COUNTERS)}


def _unwrapped(weights: Any) -> Any:
    """The innermost dict of a checkpoint that holds the weights.

    It is under one of the usual keys, or the only entry, or the only dict that holds tensors.
    """
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(weights, Mapping):
            return weights
        dicts = {key: value for key, value in weights.items() if isinstance(value, Mapping)}
        usual = [dicts[key] for key in _WRAPPERS if key in dicts]
        of_tensors = [part for part in dicts.values() if any(hasattr(value, "shape") for value in part.values())]
        if usual:
            weights = usual[0]
        elif dicts and len(weights) == 1:
            (weights,) = dicts.values()
        elif len(of_tensors) == 1:
            (weights,) = of_tensors
        else:
            return weights
    raise CakeError(f"more than {_MOST_WRAPPERS} dicts lie in one another; {_SAVE}")


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


def _check_file(path: Path) -> None:
    """Refuses what cannot be a file of weights, before anything of it is read."""
    try:
        check_regular(path)
        if path.suffix != SAFETENSORS and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_archive(path, archive, path.stat().st_size)
    except FileNotFoundError as error:
        raise CakeError(f"{path}: no such file") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise CakeError(f"{path}: damaged, or not readable: {first_line(error)}") from error


def _parse_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Does what `safetensors.numpy.load` does, and reads bfloat16, which that function does not."""
    return {
        name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(content)
    }


def _content(path: Path) -> Any:
    """What a file holds: for a safetensors file, a dict from names to arrays."""
    if path.suffix == SAFETENSORS:
        return _parse_safetensors(path.read_bytes())
    try:
        import torch
    except ImportError as error:
        raise CakeError("reading it needs PyTorch (pip install torch); a safetensors file does not") from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_TORCH:
        raise CakeError(
            f"PyTorch {torch.__version__} may run code from such a file (CVE-2025-32434); install 2.6 or later, or use "
            "a safetensors file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of formats that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        # PyTorch's message recommends `weights_only=False`, which would run code, so it is replaced.
        if "TorchScript" in str(error):
            raise CakeError(f"a TorchScript archive, which holds code; {_SAVE}") from None
        if isinstance(error, RuntimeError):
            raise
        found = _REFUSED.search(str(error))
        if found is None:
            raise CakeError("damaged, or not a file that torch.save wrote") from None
        raise CakeError(f"holds an object of {found['type']}, and such an object could run code; {_SAVE}") from None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        if hasattr(value, "detach"):  # a tensor, possibly on a GPU or of a type that NumPy lacks
            stored = value.untyped_storage().nbytes() // value.element_size()
            if value.numel() > stored:
                raise CakeError(f"it has {value.numel():,} values, of which {stored:,} are stored")
            value = value.detach().cpu().float().numpy()
        return np.asarray(value, np.float32)
    except Exception as error:
        raise CakeError(f"{name} is not a tensor of numbers: {first_line(error)}") from error
