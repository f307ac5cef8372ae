"""Exports samples, a ledger of queries, or a model, as one file.

python -m cake_jax.export runs/digits/samples samples.npz
python -m cake_jax.export queries.sqlite queries.npz
python -m cake_jax.export runs/digits/student student.safetensors
python -m cake_jax.export runs/digits/student student.stablehlo
"""

import contextlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax.checkpoint import load_model
from cake_jax.files import write_atomically
from cake_jax.samples import INDEX, SampleStore
from cake_jax.teachers import Ledger, Teacher, to_torch_tensors, weight_files
from cake_jax.teachers.answers import to_logits
from cake_jax.types import CakeError, first_line

STABLEHLO = ".stablehlo"
_PLATFORMS = ("cpu", "cuda", "tpu")


def export(folder: str | Path, path: str | Path) -> int:
    """Writes all samples of a store as one `.npz` with the fields of `SampleBatch`; returns how many.

    Args:
      folder: The store: the folder `samples` of a run.
      path: The file to write; its name ends in `.npz`.

    Raises:
      CakeError: There is no store, it is empty, a shard is damaged, or the file's name ends otherwise.
    """
    if not (Path(folder) / INDEX).exists():
        raise CakeError(f"{folder}: no sample store ({INDEX} is missing)")
    _check_npz(path)
    samples = SampleStore(folder).select()
    np.savez(path, allow_pickle=False, **samples._asdict())
    return samples.num_samples


def export_queries(ledger: str | Path, path: str | Path) -> int:
    """Writes all answered queries of a ledger as one `.npz`, in the order in which they were asked; returns how many.

    It holds x `[N, *shape]` float32, normalised; logits `[N, K]` float32, labels `[N]` int32, the largest logits'; and
    spec, the fields of the `DataSpec` as JSON, with which x is `(pixel - mean) / std`.

    Args:
      ledger: The ledger's file; no run may have it open.
      path: The file to write; its name ends in `.npz`.

    Raises:
      CakeError: The ledger is missing, damaged or in use, or the file's name ends otherwise.
    """
    _check_npz(path)
    with contextlib.closing(Ledger(ledger)) as opened:
        (x, answers), terms = opened.answered(), opened.terms
    logits = to_logits(answers, terms.answers, terms.spec.num_classes)
    labels = logits.argmax(-1).astype(np.int32)
    np.savez(path, allow_pickle=False, x=x, logits=logits, labels=labels, spec=json.dumps(terms.spec.to_dict()))
    return len(x)


def _check_npz(path: str | Path) -> None:
    if Path(path).suffix != ".npz":
        raise CakeError(f"{path}: name a file that ends in .npz")


def to_safetensors(model: Teacher, path: str | Path, *, naming: str | None = None) -> str:
    """Writes a model's weights as a safetensors file, which `from_torch_weights` reads again.

    Args:
      model: A teacher or student with variables.
      path: The file to write; its name ends in `.safetensors`.
      naming: Of the tensors, as `to_torch_tensors` takes it. By default that of PyTorch where the architecture has one,
        so that `load_state_dict` takes them; else our own paths joined by dots.

    Returns:
      The naming.

    Raises:
      CakeError: The model has no weights or not this naming, or the file's name ends otherwise.
    """
    naming, tensors = to_torch_tensors(model, naming)
    weight_files.write(path, tensors, {"naming": naming})
    return naming


def to_stablehlo(model: Teacher, path: str | Path) -> None:
    """Writes a model as a StableHLO program with its weights, for CPU, CUDA and TPU, which needs JAX alone to run.

    `jax.export.deserialize(bytearray(content)).call(x)` gives its logits `[B, K]` of normalised x `[B, *shape]`
    float32, for any B. The forms of convolutions are those that suit the backend at hand.

    Args:
      model: A teacher or student in JAX; none that calls PyTorch.
      path: The file to write; its name ends in `.stablehlo`.

    Raises:
      CakeError: The model cannot be exported, or the file's name ends otherwise.
    """
    if Path(path).suffix != STABLEHLO:
        raise CakeError(f"{path}: name a file that ends in {STABLEHLO}")
    axes = jax.export.symbolic_shape(", ".join(("batch", *map(str, model.spec.shape))))
    function = jax.jit(lambda x: model(x).astype(jnp.float32))
    try:
        program = jax.export.export(function, platforms=_PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
        content = program.serialize()
    except Exception as error:
        raise CakeError(f"export: the model has no StableHLO form: {first_line(error)}") from error
    write_atomically(Path(path), bytes(content))


def main(source: str, path: str) -> str:
    """What the command does, by the ending of `path`; returns what to tell the user.

    Raises:
      CakeError: As the functions above, `load_model`, or another ending.
    """
    suffix = Path(path).suffix
    if suffix == ".npz" and Path(source).is_file():
        return f"{export_queries(source, path)} queries written to {path}"
    if suffix == ".npz":
        return f"{export(source, path)} samples written to {path}"
    if suffix == weight_files.SAFETENSORS:
        return f"weights written to {path}, named as {to_safetensors(load_model(Path(source)), path)} does"
    if suffix == STABLEHLO:
        to_stablehlo(load_model(Path(source)), path)
        return f"program written to {path}"
    raise CakeError(
        f"{path}: name a file that ends in .npz (for samples or queries), "
        f"{weight_files.SAFETENSORS} or {STABLEHLO} (for models)"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cake_jax.export FOLDER_OR_LEDGER FILE.{npz,safetensors,stablehlo}")
    try:
        print(main(sys.argv[1], sys.argv[2]))
    except (CakeError, OSError) as problem:
        sys.exit(f"error: {problem}")
