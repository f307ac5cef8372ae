"""The signature of a data prior."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array


class Prior(NamedTuple):
    """A data prior: a loss term that depends on the sample alone, and is low for plausible inputs.

    Attributes:
      value: Differentiable function that maps samples `[..., *shape]` to one value for each sample, `[...]` float32.
      needs_images: Whether inputs must be images.
    """

    value: Callable[[Array], Array]
    needs_images: bool = False
