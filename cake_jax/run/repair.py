"""Damaged files of an unfinished run. A note names them, and the run makes their content anew.

Models, states and samples have checksums, and each follows from the run's config, its seed and the files that the
config names. As long as these files are the same, what is made anew equals what was lost.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

from cake_jax import parallel
from cake_jax.errors import CakeWarning
from cake_jax.stores import checkpoint
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher


def saved_model(folder: Path) -> Teacher | None:
    """The model of a folder. None if there is none, or if its variables are damaged.

    Raises:
      CakeError: The model cannot be loaded for another reason than damage.
    """
    if not checkpoint.has_model(folder):
        return None
    try:
        return checkpoint.load_model(folder)
    except checkpoint.DamagedError:
        _note(folder)
        return None


def saved_state(folder: Path, like: Any) -> Any:
    """The newest saved state of a training or of a method. `like` if there is none, or if it is damaged.

    Raises:
      CakeError: The state cannot be loaded for another reason than damage.
    """
    try:
        state, is_sound = checkpoint.load_state(folder, like), True
    except checkpoint.DamagedError:
        _note(folder / "training")
        state, is_sound = like, False
    # All processes go on from the same state, also if only one has read a damaged one.
    if parallel.in_any(not is_sound):
        state = like
        if parallel.is_first():
            checkpoint.drop_states(folder)
    return state


def sound_samples(folder: Path, rounds: Path) -> SampleStore:
    """The store of a folder without its damaged shards.

    The guide students of a method belong to its rounds. If one of them is damaged, no round counts.
    """
    store = SampleStore(folder)
    # Each process reads a share of the shards.
    own = set(parallel.own_share([*store.entries]))
    found = parallel.each_in_any([batch in own and store.is_damaged(batch) for batch in store.entries])
    damaged = [batch for batch, is_damaged in zip(store.entries, found, strict=True) if is_damaged]
    students = [path for path in sorted(rounds.glob("[0-9]*")) if checkpoint.is_damaged(path)]
    for path in (*(folder / store.entries[batch]["file"] for batch in damaged), *students):
        _note(path)
    parallel.wait_for_all("samples read")
    lost = set(store.entries) if students else set(damaged)
    if parallel.is_first():
        for path in students:
            shutil.rmtree(path)
        store.keep(lambda batch: batch not in lost)
    else:
        store.entries = {batch: entry for batch, entry in store.entries.items() if batch not in lost}
    return store


def _note(path: Path) -> None:
    warnings.warn(f"{path}: damaged, its checksum differs; it is made anew", CakeWarning, stacklevel=3)
