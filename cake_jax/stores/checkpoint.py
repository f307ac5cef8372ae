"""Checkpoints: finished models with their specification, and the states of unfinished trainings.

No other module uses Orbax. If a run has several processes, each of them must make the same calls. Orbax lets one write.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from cake_jax import models, parallel
from cake_jax.files import read, read_json, write_atomically
from cake_jax.models import modes
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.teachers.teacher import checked
from cake_jax.types import CakeError, DataSpec, first_line

_MODEL = "model.json"
_VARIABLES = "variables"
_TRAINING = "training"
_CHECKSUM = "sha256"


class DamagedError(CakeError):
    """A saved model or state is not what was written: files are missing, or the checksum differs."""


def save_model(folder: Path, model: Teacher, name: str, options: dict[str, Any]) -> None:
    """Saves a finished model, and deletes its training states.

    `model.json` is written last, so a folder with `model.json` is complete.

    Args:
      folder: The folder of the model. It is made if it is missing. A model or an incomplete save there is replaced.
      model: The model.
      name: Name of the architecture in `models.MODELS`.
      options: Options of the architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MODEL).unlink(missing_ok=True)
    _save(folder / _VARIABLES, model.variables)
    about = {"model": {"name": name, "options": options}, "spec": model.spec.to_dict()}
    if parallel.is_first():
        write_atomically(folder / _MODEL, json.dumps(about, indent=1).encode())
        drop_states(folder)


def has_model(folder: Path) -> bool:
    """Whether `folder` holds a finished model."""
    return (folder / _MODEL).exists()


def is_damaged(folder: Path) -> bool:
    """Whether the variables of a finished model have another checksum than when they were saved."""
    return has_model(folder) and not _is_sound(folder / _VARIABLES)


def model_info(folder: Path) -> dict[str, Any]:
    """The description of a saved model: `model.name`, `model.options` and `spec`, as nested dicts.

    Raises:
      CakeError: The folder has no finished model, or its description is damaged.
    """
    try:
        about = read_json(folder / _MODEL)
    except FileNotFoundError as error:
        inner = next((f"; did you mean {path.parent}?" for path in sorted(folder.glob(f"*/{_MODEL}"))), "")
        raise CakeError(f"{folder}: no model here ({_MODEL} is missing){inner}") from error
    except ValueError as error:
        raise CakeError(f"{folder / _MODEL}: damaged; train the model again") from error
    match about:
        case {"model": {"name": str(), "options": dict()}, "spec": dict()}:
            return about
    raise CakeError(f"{folder / _MODEL}: damaged; train the model again")


def model_spec(folder: Path) -> DataSpec:
    """The specification of a saved model.

    Raises:
      CakeError: The folder has no finished model, or its description is damaged.
    """
    about = model_info(folder)
    try:
        return DataSpec.from_dict(about["spec"])
    except (ValueError, TypeError) as error:
        raise CakeError(f"{folder / _MODEL}: {first_line(error)}") from error


def load_model(folder: str | Path) -> Teacher:
    """Loads one model: the folder `teacher` or `student` of a run.

    Raises:
      DamagedError: The variables are damaged.
      CakeError: The folder has no finished model, its description is damaged, or the model cannot be made.
    """
    folder = Path(folder)
    spec, about = model_spec(folder), model_info(folder)["model"]
    try:
        module = models.create(about["name"], spec, about["options"])
        variables = _load(folder / _VARIABLES, modes.shapes(module, spec.shape))
    except DamagedError as error:
        raise DamagedError(f"{folder / _VARIABLES}: damaged; train the model again: {error}") from error
    except CakeError as error:
        raise CakeError(f"{folder / _MODEL}: {error}") from error
    except Exception as error:
        raise CakeError(f"{folder / _VARIABLES}: damaged; train the model again: {first_line(error)}") from error
    return checked(Teacher(variables, LinenApply(module), spec), values=False)


def save_state(folder: Path, step: int, state: Any) -> None:
    """Saves the state of a training, then deletes the older states.

    Args:
      folder: The folder of the model.
      step: Number of epochs or rounds done. The state with the highest number is the newest.
      state: A pytree of arrays.
    """
    training = folder / _TRAINING
    training.mkdir(parents=True, exist_ok=True)
    _save(training / f"{step:06d}", state)
    if parallel.is_first():
        for old in _states(training)[:-1]:
            shutil.rmtree(old)


def load_state(folder: Path, like: Any) -> Any:
    """Loads the newest saved state of a training.

    Args:
      folder: The folder of the model.
      like: A state with the structure, shapes and types of the saved one.

    Returns:
      The saved state. If there is none, `like` itself.

    Raises:
      DamagedError: The state is damaged.
      CakeError: The state does not have the structure of `like`.
    """
    saved = _states(folder / _TRAINING)
    if not saved:
        return like
    try:
        return _load(saved[-1], like)
    except DamagedError as error:
        raise DamagedError(f"{saved[-1]}: damaged; delete it and run again: {error}") from error
    except Exception as error:
        raise CakeError(f"{saved[-1]}: damaged; delete it and run again: {first_line(error)}") from error


def drop_states(folder: Path) -> None:
    """Deletes all states that `save_state` saved."""
    shutil.rmtree(folder / _TRAINING, ignore_errors=True)


def _save(path: Path, tree: Any) -> None:
    """Saves a pytree with Orbax, then a checksum of its files. Orbax alone does not notice a changed weight.

    Raises:
      OSError: The files cannot be written, for example because the disk is full.
    """
    try:
        ocp.save(path.absolute(), jax.device_get(tree), overwrite=True)
    except ValueError as error:
        # Orbax writes with a library whose errors name the system's error in their text alone.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    if parallel.is_first():
        write_atomically(path / _CHECKSUM, _checksum(path).encode())


def _load(path: Path, like: Any) -> Any:
    if not _is_sound(path):
        raise DamagedError("the checksum differs")
    return ocp.load(path.absolute(), jax.tree.map(_on_host, like))


def _is_sound(folder: Path) -> bool:
    path = folder / _CHECKSUM
    return path.exists() and read(path).decode(errors="replace") == _checksum(folder)


def _checksum(folder: Path) -> str:
    """SHA-256 of the names and contents of all files except the checksum."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _CHECKSUM):
        digest.update(str(path.relative_to(folder)).encode())
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _on_host(leaf: Any) -> np.ndarray:
    """A NumPy array of the leaf's shape and type. With it Orbax loads into NumPy, which fits any number of devices."""
    return np.empty(leaf.shape, leaf.dtype)


def _states(training: Path) -> list[Path]:
    """The folders of complete saves, the oldest first. A complete save has its checksum."""
    return sorted(path for path in training.glob("*") if (path / _CHECKSUM).exists())
