"""The signature that every method has."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from cake_jax.synthesis import SynthesisInfo
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, SampleBatch

Next = Callable[[Array, Any, Teacher, Teacher | None], tuple[Any, SampleBatch, SynthesisInfo]]


class Method(NamedTuple):
    """A way to make samples.

    Attributes:
      settings: `(settings) -> settings`, as the method reads them; what it does not use it sets to what it does.
      init: `(key, spec, settings, first_batch) -> state`; `first_batch` mini-batches are in the store already.
      next: `(key, state, teacher, student) -> (state, samples, info)`, one mini-batch. The key is that of the whole
        synthesis. `student` is None in the first round.
    """

    settings: Callable[[SynthesisSettings], SynthesisSettings]
    init: Callable[[Array, DataSpec, SynthesisSettings, int], Any]
    next: Next
