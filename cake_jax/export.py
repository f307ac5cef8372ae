"""Exports a sample store as one file.

python -m cake_jax.export runs/digits/samples samples.npz
"""

import sys
from pathlib import Path

import numpy as np

from cake_jax.samples import INDEX, SampleStore
from cake_jax.types import CakeError


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
    if Path(path).suffix != ".npz":
        raise CakeError(f"{path}: name a file that ends in .npz")
    samples = SampleStore(folder).select()
    np.savez(path, allow_pickle=False, **samples._asdict())
    return samples.num_samples


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cake_jax.export FOLDER FILE.npz")
    try:
        print(f"{export(sys.argv[1], sys.argv[2])} samples written to {sys.argv[2]}")
    except (CakeError, OSError) as problem:
        sys.exit(f"error: {problem}")
