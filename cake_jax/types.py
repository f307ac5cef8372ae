"""The types that all other modules share."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from cake_jax import checks
from cake_jax.errors import CakeError, CakeWarning, first_line, printable

Array = jax.Array | np.ndarray
Examples = tuple[np.ndarray, np.ndarray]  # inputs [N, *shape] and labels [N]

# The kinds of access that a teacher may give, from the least to the most. Each includes those before it.
ACCESS = ("labels", "scores", "gradients", "statistics")


class Queryable(Protocol):
    """A classifier that answers queries: a white-box `Teacher` or a `BlackBox`.

    Attributes:
      spec: Specification of the inputs.
      access: The highest access that the classifier gives, one of `ACCESS`.
      queries: Number of inputs charged so far. None if queries are free.
      num_params: Number of trainable parameters. None if it is unknown.
    """

    @property
    def spec(self) -> "DataSpec":
        """Specification of the inputs."""
        ...

    @property
    def access(self) -> str:
        """The highest access that the classifier gives, one of `ACCESS`."""
        ...

    @property
    def queries(self) -> int | None:
        """Number of inputs charged so far, or None."""
        ...

    @property
    def num_params(self) -> int | None:
        """Number of trainable parameters, or None."""
        ...

    def predict(self, x: Array) -> np.ndarray:
        """Returns logits `[N, K]` float32 on the host for normalised inputs x `[N, *spec.shape]`."""
        ...


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The specification of a teacher's inputs and classes.

    Inside the library, inputs x are always in normalised units, `(pixel - mean) / std`.

    Attributes:
      shape: Shape of one input: `(H, W, C)` for images, `(D,)` for feature vectors.
      num_classes: K, the number of classes and of logits.
      mean: Mean in pixel units: one value for each channel (the last axis), or one value for all.
      std: Standard deviation in pixel units, like `mean`.
      low: Lowest pixel value. None if the domain is unbounded.
      high: Highest pixel value. None if the domain is unbounded.
      class_names: Names of the K classes, or empty.

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
        for name in ("shape", "mean", "std", "class_names"):
            value = getattr(self, name)
            if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim):
                object.__setattr__(self, name, tuple(value.tolist() if isinstance(value, np.ndarray) else value))
        checks.fields(self)
        if not self.shape or min(self.shape) < 1:
            raise CakeError(f"DataSpec.shape: {self.shape} needs at least one axis, and sizes of 1 or more")
        if self.num_classes < 2:
            raise CakeError(f"DataSpec.num_classes: {self.num_classes} is less than 2")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.shape[-1]):
                raise CakeError(f"DataSpec.{name}: give 1 value or {self.shape[-1]}, one for each channel or feature")
        if not np.isfinite((*self.mean, *self.std)).all():
            raise CakeError("DataSpec.mean and DataSpec.std: every value must be finite")
        if not all(value > 0 for value in self.std):
            raise CakeError("DataSpec.std: every value must be above 0")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise CakeError(f"DataSpec.low: {self.low} is not below high = {self.high}")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise CakeError(f"DataSpec.class_names: {len(self.class_names)} names for {self.num_classes} classes")
        for name in self.class_names:
            if name != printable(name):
                raise CakeError(f"DataSpec.class_names: '{name}' has control codes or line breaks; rename it")

    @property
    def is_image(self) -> bool:
        """Whether an input is an image, `(H, W, C)`."""
        return len(self.shape) == 3

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest valid value of each channel in normalised units. An unknown bound is infinite."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        mean, std = _float32(self.mean), _float32(self.std)
        return (np.float32(low) - mean) / std, (np.float32(high) - mean) / std

    def normalize(self, pixels: Array) -> np.ndarray:
        """Converts pixels `[..., *shape]` to normalised units, float32, same shape."""
        return (np.asarray(pixels, np.float32) - _float32(self.mean)) / _float32(self.std)

    def denormalize(self, x: Array) -> np.ndarray:
        """Converts normalised x `[..., *shape]` to pixels, float32, clipped to `[low, high]` if these are known."""
        pixels = np.asarray(x, np.float32) * _float32(self.std) + _float32(self.mean)
        if self.low is not None or self.high is not None:
            pixels = np.clip(pixels, self.low, self.high)
        return pixels

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values. `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "DataSpec":
        """Makes the specification with these fields. Lists become tuples, because JSON has no tuples."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


class SampleBatch(NamedTuple):
    """N synthetic samples. Students train on `x` and `logits`. Filters and reports use the other fields.

    Attributes:
      x: Inputs in normalised units, `[N, *shape]` float32.
      logits: The teacher's logits of x, `[N, K]` float32. The student's loss computes its labels from them.
      target: Target class, `[N]` int32. -1 if the method has none.
      step_size: Step size of the sample's mini-batch, `[N]` float32.
      set_index: Number of the sample's set in the whole synthesis, `[N]` int32.
    """

    x: np.ndarray
    logits: np.ndarray
    target: np.ndarray
    step_size: np.ndarray
    set_index: np.ndarray

    @property
    def num_samples(self) -> int:
        """The number of samples N."""
        return len(self.x)

    def select(self, mask: np.ndarray) -> "SampleBatch":
        """The samples for which the boolean `mask` `[N]` is true."""
        return SampleBatch(*(field[mask] for field in self))


def concatenate(batches: list[SampleBatch]) -> SampleBatch:
    """Joins batches along the sample axis on the host.

    Raises:
      CakeError: `batches` is empty.
    """
    if not batches:
        raise CakeError("no sample batches to join")
    return SampleBatch(*(np.concatenate(field) for field in zip(*batches, strict=True)))


def _float32(values: tuple[float, ...]) -> np.ndarray:
    return np.asarray(values, np.float32)


__all__ = [
    "ACCESS",
    "Array",
    "CakeError",
    "CakeWarning",
    "DataSpec",
    "Examples",
    "Queryable",
    "SampleBatch",
    "concatenate",
    "first_line",
]
