"""The types that every floor shares: a data specification, a batch of synthetic samples, the error a user can mend."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
Examples = tuple[np.ndarray, np.ndarray]  # inputs [N, *shape] and labels [N]


class CakeError(ValueError):
    """Something that the user can mend. The message is one line: the field or file at fault, and the mend."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none: what a `CakeError` quotes of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Everything that a user is assumed to know of the teacher's input domain.

    Inside the library x is always in normalised units, `(pixel - mean) / std`.

    Attributes:
      shape: Shape of one input: `(H, W, C)` for images, `(D,)` for feature vectors.
      num_classes: Number of classes K, the width of the logits.
      mean: Mean in pixel units; one value a channel (the last axis), or a single value for all.
      std: Standard deviation in pixel units, like `mean`.
      low: Lowest pixel value, None where the domain is unbounded.
      high: Highest pixel value, None where the domain is unbounded.
      class_names: K names, or empty.

    Raises:
      CakeError: A field is out of range, or its length does not fit `shape` or `num_classes`.
    """

    shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    low: float | None = None
    high: float | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise CakeError(f"DataSpec.shape: {self.shape} needs at least one axis, and sizes of 1 or more")
        if self.num_classes < 2:
            raise CakeError(f"DataSpec.num_classes: {self.num_classes} is less than 2")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.shape[-1]):
                raise CakeError(f"DataSpec.{name}: give 1 value or {self.shape[-1]}, one for each channel")
        if not all(value > 0 for value in self.std):
            raise CakeError("DataSpec.std: every value must be above 0")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise CakeError(f"DataSpec.low: {self.low} is not below high = {self.high}")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise CakeError(f"DataSpec.class_names: {len(self.class_names)} names for {self.num_classes} classes")

    @property
    def is_image(self) -> bool:
        """Whether one input is an image, `(H, W, C)`."""
        return len(self.shape) == 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest valid value of each channel in normalised units, infinite where unknown."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        mean, std = _float32(self.mean), _float32(self.std)
        return (np.float32(low) - mean) / std, (np.float32(high) - mean) / std

    def normalize(self, pixels: Array) -> np.ndarray:
        """Pixels `[..., *shape]` to normalised units, float32, same shape."""
        return (np.asarray(pixels, np.float32) - _float32(self.mean)) / _float32(self.std)

    def denormalize(self, x: Array) -> np.ndarray:
        """Normalised `[..., *shape]` to pixel units, float32, clipped to `[low, high]` where they are known."""
        pixels = np.asarray(x, np.float32) * _float32(self.std) + _float32(self.mean)
        if self.low is not None or self.high is not None:
            pixels = np.clip(pixels, self.low, self.high)
        return pixels

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "DataSpec":
        """The inverse of `to_dict`; lists, as JSON gives them, become tuples."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


class SampleBatch(NamedTuple):
    """N synthetic samples. All but the logits and inputs are bookkeeping that filters and reports use.

    Attributes:
      x: Inputs in normalised units, `[N, *shape]` float32.
      logits: The teacher's logits at x, `[N, K]` float32. Labels and temperature are chosen when the student trains.
      target: The intended class, `[N]` int32; -1 where a method has none.
      step_size: Step size of the mini-batch that the sample comes from, `[N]` float32.
      set_index: Global number of the contrastive set that the sample belongs to, `[N]` int32.
    """

    x: np.ndarray
    logits: np.ndarray
    target: np.ndarray
    step_size: np.ndarray
    set_index: np.ndarray

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return len(self.x)

    def select(self, mask: np.ndarray) -> "SampleBatch":
        """The samples where the boolean `mask` `[N]` holds."""
        return SampleBatch(*(field[mask] for field in self))


def concatenate(batches: list[SampleBatch]) -> SampleBatch:
    """Joins batches along the sample axis, on the host.

    Raises:
      CakeError: `batches` is empty.
    """
    if not batches:
        raise CakeError("no sample batches to join")
    return SampleBatch(*(np.concatenate(field) for field in zip(*batches, strict=True)))


def _float32(values: tuple[float, ...]) -> np.ndarray:
    return np.asarray(values, np.float32)
