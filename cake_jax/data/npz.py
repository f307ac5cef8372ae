"""A user's own arrays in one `.npz` file: x_train, y_train, x_test, y_test, as Keras has it. Nothing is unpickled."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cake_jax.data import cache
from cake_jax.types import CakeError, DataSpec, Examples, first_line

SPECS: dict[str, DataSpec] = {}
OWN = "npz"
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def train_size(name: str, data_dir: str) -> int:
    """Number of training examples, as the file's headers have it."""
    return _headers(_file(data_dir))["x_train"][0][0]


def check(name: str, data_dir: str) -> None:
    """Refuses a file that lacks an array, or whose arrays do not fit each other; only their headers are read."""
    _headers(_file(data_dir))


def measure(data_dir: str, image_size: int) -> DataSpec:
    """The specification of the arrays: shape, classes, and mean and deviation of the training inputs by last axis.

    Images are `[N, H, W]` or `[N, H, W, C]`: uint8, taken as v / 255, or floats, whose range is known only where it is
    within [0, 1]. Vectors are `[N, D]`. Kept in the user's cache folder for as long as the file does not change.
    """
    path = _file(data_dir)
    _headers(path)
    about = path.stat()
    state = f"{path.resolve()} {about.st_size} {about.st_mtime_ns}"

    def found() -> DataSpec:
        x, labels = _pixels(path, "x_train"), _labels(path, "y_train")
        axes = tuple(range(x.ndim - 1))
        mean, std = x.mean(axis=axes, dtype=np.float64), x.std(axis=axes, dtype=np.float64)
        std = np.where(std > 0, std, 1.0)  # a feature that never changes
        bounded = x.ndim == 4 and x.min() >= 0 and x.max() <= 1
        low, high = (0.0, 1.0) if bounded else (None, None)
        classes = int(labels.max()) + 1
        present = np.unique(labels)
        if classes < 2 or len(present) < classes:
            raise CakeError(
                f"{path}: y_train has {len(present)} classes of {classes}; number two or more from 0, no gap"
            )
        return DataSpec(x.shape[1:], classes, _rounded(mean), _rounded(std), low, high)

    return cache.spec(cache.path_of("npz-spec", state, "json"), found)


def load(name: str, data_dir: str, image_size: int, train_rows: np.ndarray) -> tuple[Examples, Examples]:
    """Inputs in pixel units and labels of the given training rows and of the test set; see `cake_jax.data.load`."""
    path = _file(data_dir)
    _headers(path)
    train = _pixels(path, "x_train")[train_rows], _labels(path, "y_train")[train_rows]
    return train, (_pixels(path, "x_test"), _labels(path, "y_test"))


def _file(data_dir: str) -> Path:
    path = Path(data_dir).expanduser()
    if not data_dir or not path.is_file():
        raise CakeError(f"dataset.data_dir: '{data_dir}' is no file; for 'npz' name the .npz file itself")
    return path


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array, checked against each other."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in _ARRAYS:
                with archive.open(f"{name}.npy") as file:
                    found[name] = _header(file)
    except KeyError as error:
        raise CakeError(f"{path}: has no array {name}; it needs {', '.join(_ARRAYS)}") from error
    except Exception as error:
        raise CakeError(f"{path}: damaged, or no .npz file: {first_line(error)}") from error
    for name, (shape, dtype) in found.items():
        inputs = name.startswith("x")
        if dtype.hasobject:
            raise CakeError(f"{path}: {name} holds Python objects, which are never read; save an array of numbers")
        if inputs and (dtype != np.uint8 and not np.issubdtype(dtype, np.floating)):
            raise CakeError(f"{path}: {name} is of type {dtype}; save uint8 or floats")
        if not inputs and not np.issubdtype(dtype, np.integer):
            raise CakeError(f"{path}: {name} is of type {dtype}; save integers, the numbers of the classes")
        if (
            len(shape) not in ((2, 3, 4) if inputs else (1, 2))
            or 0 in shape
            or (not inputs and shape[1:] not in ((), (1,)))
        ):
            raise CakeError(
                f"{path}: {name} has shape {shape}; "
                + ("[N, H, W, C], [N, H, W] or [N, D]" if inputs else "[N]")
                + " is needed"
            )
    for part in ("train", "test"):
        if found[f"x_{part}"][0][0] != found[f"y_{part}"][0][0]:
            raise CakeError(f"{path}: {found[f'x_{part}'][0][0]} x_{part} but {found[f'y_{part}'][0][0]} y_{part}")
    if found["x_train"][0][1:] != found["x_test"][0][1:] or found["x_train"][1] != found["x_test"][1]:
        raise CakeError(f"{path}: x_test does not have the shape or type of x_train")
    return found


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _pixels(path: Path, name: str) -> np.ndarray:
    """Inputs float32, `[N, H, W, C]` or `[N, D]`; of uint8, v / 255."""
    x = _array(path, name)
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(x).all():
        raise CakeError(f"{path}: {name} holds NaN or infinite values")
    return x[..., None] if x.ndim == 3 else x


def _labels(path: Path, name: str) -> np.ndarray:
    """Classes `[N]`."""
    labels = _array(path, name).reshape(-1)
    if labels.min() < 0:
        raise CakeError(f"{path}: {name} holds {labels.min()}; classes are numbered from 0")
    return labels


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays[name]
    except Exception as error:
        raise CakeError(f"{path}: {name} cannot be read: {first_line(error)}") from error


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
