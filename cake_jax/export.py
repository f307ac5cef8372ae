"""Exports the samples of a run, a ledger of queries, or a model to one file.

python -m cake_jax.export runs/digits/samples samples.npz
python -m cake_jax.export queries.sqlite queries.npz
python -m cake_jax.export runs/digits/student student.safetensors
python -m cake_jax.export runs/digits/student student.stablehlo
python -m cake_jax.export runs/digits/student student.py
"""

import contextlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax.black_box import Ledger
from cake_jax.black_box.answer_kinds import to_logits
from cake_jax.files import write_atomically
from cake_jax.stores.checkpoint import load_model
from cake_jax.stores.samples import INDEX, SampleStore
from cake_jax.teachers import Teacher, to_torch_tensors
from cake_jax.teachers.torch import weight_files
from cake_jax.teachers.torch.code import pytorch_code
from cake_jax.types import CakeError, first_line

NPZ, STABLEHLO, PYTHON = ".npz", ".stablehlo", ".py"
_PLATFORMS = ("cpu", "cuda", "tpu")


def export(folder: str | Path, path: str | Path) -> int:
    """Writes all samples of a store to one `.npz` file with the fields of `SampleBatch`.

    Args:
      folder: Folder of the store, which is `samples` in the folder of a run.
      path: File to write. Its name ends in `.npz`.

    Returns:
      The number of samples.

    Raises:
      CakeError: The store is missing or empty, a shard is damaged, or the file's name has another ending.
    """
    if not (Path(folder) / INDEX).exists():
        raise CakeError(f"{folder}: no sample store ({INDEX} is missing)")
    _check_ending(path, NPZ)
    samples = SampleStore(folder).select()
    np.savez(path, allow_pickle=False, **samples._asdict())
    return samples.num_samples


def export_queries(ledger: str | Path, path: str | Path) -> int:
    """Writes all answered queries of a ledger to one `.npz` file, in the order of the queries.

    The file holds four arrays: x `[N, *shape]` float32, normalised as `(pixel - mean) / std`; logits `[N, K]` float32;
    labels `[N]` int32, the classes of the largest logits; and spec, the fields of the `DataSpec` as JSON.

    Args:
      ledger: File of the ledger. No run may have it open.
      path: File to write. Its name ends in `.npz`.

    Returns:
      The number of answered queries N.

    Raises:
      CakeError: The ledger is missing, damaged or in use, or the file's name has another ending.
    """
    _check_ending(path, NPZ)
    with contextlib.closing(Ledger(ledger)) as opened:
        (x, answers), terms = opened.answered(), opened.terms
    logits = to_logits(answers, terms.answers, terms.spec.num_classes)
    labels = logits.argmax(-1).astype(np.int32)
    np.savez(path, allow_pickle=False, x=x, logits=logits, labels=labels, spec=json.dumps(terms.spec.to_dict()))
    return len(x)


def to_safetensors(model: Teacher, path: str | Path, *, naming: str | None = None) -> str:
    """Writes a model's weights to a safetensors file, which `from_torch_weights` reads.

    Args:
      model: A teacher or student with variables.
      path: File to write. Its name ends in `.safetensors`.
      naming: Naming of the tensors, as `to_torch_tensors` takes it. None takes PyTorch's naming, which
        `load_state_dict` accepts, or our own paths joined by dots if PyTorch does not have the architecture.

    Returns:
      The naming.

    Raises:
      CakeError: The model has no weights, the architecture does not have the naming, or the file's name has another
        ending.
    """
    naming, tensors = to_torch_tensors(model, naming)
    weight_files.write(path, tensors, {"naming": naming})
    return naming


def to_stablehlo(model: Teacher, path: str | Path) -> None:
    """Writes a model and its weights as a StableHLO program for CPU, CUDA and TPU. Running it needs only JAX.

    `jax.export.deserialize(bytearray(content)).call(x)` returns the logits `[B, K]` of normalised x `[B, *shape]`
    float32, for any B. The implementation of convolutions is chosen for the backend of the exporting process.

    Args:
      model: A teacher or student in JAX. A live PyTorch module cannot be exported.
      path: File to write. Its name ends in `.stablehlo`.

    Raises:
      CakeError: The model cannot be exported, or the file's name has another ending.
    """
    _check_ending(path, STABLEHLO)
    axes = jax.export.symbolic_shape(", ".join(("batch", *map(str, model.spec.shape))))
    function = jax.jit(lambda x: model(x).astype(jnp.float32))
    try:
        program = jax.export.export(function, platforms=_PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
        content = program.serialize()
    except Exception as error:
        raise CakeError(f"export: the model cannot be written as StableHLO: {first_line(error)}") from error
    write_atomically(Path(path), bytes(content))


def to_pytorch(model: Teacher, path: str | Path) -> Path:
    """Writes a model as PyTorch code, and its weights to a safetensors file of the same name.

    The code's function `load(weights)` returns the network, which takes normalised images `[B, C, H, W]` or vectors
    `[B, D]` and returns logits `[B, K]`. The code needs PyTorch and safetensors, and not this package.

    Args:
      model: A teacher or student of an architecture in `teachers.torch.code.NETWORK_OF`.
      path: File to write. Its name ends in `.py`.

    Returns:
      The file of the weights.

    Raises:
      CakeError: There is no PyTorch code for the architecture, or the file's name has another ending.
    """
    _check_ending(path, PYTHON)
    code, weights = pytorch_code(model), Path(path).with_suffix(weight_files.SAFETENSORS)
    to_safetensors(model, weights)
    write_atomically(Path(path), code.encode())
    return weights


def main(source: str, path: str) -> str:
    """Exports `source` in the format that the ending of `path` names.

    Args:
      source: Folder of samples, file of a ledger, or folder of a model.
      path: File to write.

    Returns:
      A message for the user.

    Raises:
      CakeError: The source cannot be loaded or exported, or the ending of `path` is unknown.
    """
    suffix = Path(path).suffix
    if suffix == NPZ and Path(source).is_file():
        return f"{export_queries(source, path)} queries written to {path}"
    if suffix == NPZ:
        return f"{export(source, path)} samples written to {path}"
    if suffix == weight_files.SAFETENSORS:
        naming = to_safetensors(load_model(Path(source)), path)
        return f"weights written to {path} with the names of {naming}"
    if suffix == STABLEHLO:
        to_stablehlo(load_model(Path(source)), path)
        return f"program written to {path}"
    if suffix == PYTHON:
        return f"weights written to {to_pytorch(load_model(Path(source)), path)}, PyTorch code to {path}"
    raise CakeError(
        f"{path}: the file name must end in {NPZ} (for samples or queries), "
        f"{weight_files.SAFETENSORS}, {STABLEHLO} or {PYTHON} (for models)"
    )


def _check_ending(path: str | Path, ending: str) -> None:
    if Path(path).suffix != ending:
        raise CakeError(f"{path}: the file name must end in {ending}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cake_jax.export FOLDER_OR_LEDGER FILE.{npz,safetensors,stablehlo,py}")
    try:
        print(main(sys.argv[1], sys.argv[2]))
    except (CakeError, OSError, MemoryError) as problem:
        sys.exit(f"error: {problem}")
