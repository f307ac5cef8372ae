"""The floor that every method must beat: the teacher labels Gaussian noise, N(0, I)."""

import dataclasses

from cake_jax.methods import cake
from cake_jax.synthesis_settings import SynthesisSettings


def without_steps(settings: SynthesisSettings) -> SynthesisSettings:
    """The same settings with T = 0 and a normal start: no gradient is asked for."""
    return dataclasses.replace(settings, num_steps=0, start="normal")


METHOD = cake.METHOD._replace(settings=without_steps)
