"""The baseline that every method must beat: the teacher labels Gaussian noise N(0, I)."""

import dataclasses

from cake_jax.methods import starts
from cake_jax.synthesis import SynthesisSettings
from cake_jax.types import DataSpec


def prepare(settings: SynthesisSettings, spec: DataSpec) -> SynthesisSettings:
    """Returns the checked settings of the method `starts` with a normal start.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    return starts.prepare(dataclasses.replace(settings, start="normal"), spec)


NOISE = starts.STARTS._replace(prepare=prepare)
