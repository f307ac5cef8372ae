"""A user's own arrays in one `.npz` file with Keras's names. Nothing is unpickled."""

import dataclasses
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cake_jax.data import cache
from cake_jax.data.source import NO_TRAINING_INPUTS, DataSettings
from cake_jax.files import check_archive
from cake_jax.types import CakeError, CakeWarning, DataSpec, Examples, first_line

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Npz:
    """The `Source` of the arrays in the file `DataSettings.data_dir`. `DataSettings.image_size` is ignored.

    The arrays are x_train, y_train, x_test and y_test. The first two may be missing. x are images `[N, H, W]` or
    `[N, H, W, C]`, or vectors `[N, D]`. They are floats, or uint8 values v, which are read as v / 255. y are integers
    `[N]` or `[N, 1]` from 0 to K - 1.
    """

    measured: ClassVar[bool] = True

    def spec(self, settings: DataSettings) -> DataSpec:
        """The specification: shape and classes, and mean and standard deviation of the training inputs by last axis.

        The bounds are 0 and 1 if all training inputs are images within [0, 1]. Otherwise they are unknown. The
        specification is cached until the file changes. Without training inputs, the test inputs are measured.
        """
        path = _file(settings)
        if "x_train" not in _headers(path):
            warnings.warn(f"{path}: {NO_TRAINING_INPUTS}", CakeWarning, stacklevel=2)
        about = path.stat()
        state = f"{path.resolve()} {about.st_size} {about.st_mtime_ns}"
        return cache.spec(cache.path_of("npz-spec", state, "json"), lambda: _measure(path))

    def check(self, settings: DataSettings) -> None:
        """Refuses a file that lacks an array, or whose arrays do not fit together. Reads the arrays' headers only."""
        _headers(_file(settings))

    def train_size(self, settings: DataSettings) -> int:
        """The number of training examples in the array's header, or 0."""
        headers = _headers(_file(settings))
        return headers["x_train"][0][0] if "x_train" in headers else 0

    def load(self, settings: DataSettings, train_rows: np.ndarray) -> tuple[Examples, Examples]:
        """Training and test inputs `[n, H, W, C]` or `[n, D]` float32 with labels; see `Source.load`."""
        path = _file(settings)
        test = _pixels(path, "x_test"), _labels(path, "y_test")
        if "x_train" not in _headers(path):
            return (test[0][:0], test[1][:0]), test
        return (_pixels(path, "x_train")[train_rows], _labels(path, "y_train")[train_rows]), test


def _measure(path: Path) -> DataSpec:
    part = "train" if "x_train" in _headers(path) else "test"
    x, labels = _pixels(path, f"x_{part}"), _labels(path, f"y_{part}")
    axes = tuple(range(x.ndim - 1))
    mean, std = x.mean(axis=axes, dtype=np.float64), x.std(axis=axes, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)  # a constant feature must not divide by 0
    bounded = x.ndim == 4 and x.min() >= 0 and x.max() <= 1
    low, high = (0.0, 1.0) if bounded else (None, None)
    classes = int(labels.max()) + 1
    present = len(np.unique(labels))
    if classes < 2 or present < classes:
        raise CakeError(
            f"{path}: y_{part} has {present} of the classes 0 to {classes - 1}; number two or more classes from 0, "
            "without a gap"
        )
    return DataSpec(x.shape[1:], classes, _rounded(mean), _rounded(std), low, high)


def _file(settings: DataSettings) -> Path:
    path = Path(settings.data_dir).expanduser()
    if not settings.data_dir or not path.is_file():
        raise CakeError(f"dataset.data_dir: '{settings.data_dir}' is not a file; for 'npz' name the .npz file itself")
    return path


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array, after a check that the arrays fit together."""
    found, held = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(path, archive, path.stat().st_size)
            has_training = any(f"{name}.npy" in archive.namelist() for name in _ARRAYS[:2])
            for name in _ARRAYS if has_training else _ARRAYS[2:]:
                with archive.open(f"{name}.npy") as file:
                    found[name] = _header(file)
                    held[name] = archive.getinfo(f"{name}.npy").file_size - file.tell()
    except CakeError:
        raise
    except KeyError as error:
        raise CakeError(
            f"{path}: no array {name}; the file must have x_test and y_test, and to train a teacher x_train and y_train"
        ) from error
    except Exception as error:
        raise CakeError(f"{path}: damaged, or not an .npz file: {first_line(error)}") from error
    for name, (shape, dtype) in found.items():
        inputs = name.startswith("x")
        if dtype.hasobject:
            raise CakeError(f"{path}: {name} has Python objects, which are never read; save an array of numbers")
        if inputs and (dtype != np.uint8 and not np.issubdtype(dtype, np.floating)):
            raise CakeError(f"{path}: {name} has type {dtype}; save uint8 or floats")
        if not inputs and not np.issubdtype(dtype, np.integer):
            raise CakeError(f"{path}: {name} has type {dtype}; save class numbers as integers")
        if (
            len(shape) not in ((2, 3, 4) if inputs else (1, 2))
            or 0 in shape
            or (not inputs and shape[1:] not in ((), (1,)))
        ):
            allowed = "[N, H, W, C], [N, H, W] or [N, D]" if inputs else "[N] or [N, 1]"
            raise CakeError(f"{path}: {name} has shape {shape}; save a non-empty array {allowed}")
        if math.prod(shape) * dtype.itemsize != held[name]:
            raise CakeError(f"{path}: {name} has shape {shape}, but the file holds {held[name]} bytes of it")
    for part in ("train", "test") if has_training else ("test",):
        num_x, num_y = (found[f"{kind}_{part}"][0][0] for kind in "xy")
        if num_x != num_y:
            raise CakeError(f"{path}: x_{part} has {num_x} examples, but y_{part} has {num_y}")
    if has_training and (
        found["x_train"][0][1:] != found["x_test"][0][1:] or found["x_train"][1] != found["x_test"][1]
    ):
        raise CakeError(f"{path}: x_test differs from x_train in shape or type")
    return found


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _pixels(path: Path, name: str) -> np.ndarray:
    """Inputs float32, `[N, H, W, C]` or `[N, D]`. uint8 values v are v / 255."""
    x = _array(path, name)
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(x).all():
        raise CakeError(f"{path}: {name} has NaN or infinite values")
    return x[..., None] if x.ndim == 3 else x


def _labels(path: Path, name: str) -> np.ndarray:
    """Labels `[N]`."""
    labels = _array(path, name).reshape(-1)
    if labels.min() < 0:
        raise CakeError(f"{path}: {name} has the label {labels.min()}; number classes from 0")
    return labels


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays[name]
    except Exception as error:
        raise CakeError(f"{path}: {name} cannot be read: {first_line(error)}") from error


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)


NPZ = Npz()
