"""DeepDream or gradient inversion: each sample descends its cross entropy, independently of the others.

This baseline of CAKE's Fig. 1 (arXiv 2306.02090) is CAKE without the contrastive term and with a constant step size.
Source: Mordvintsev, Olah, Tyka 2015, *Inceptionism*. It is also a baseline in Yin et al. 2020 (arXiv 1912.08795).
"""

import dataclasses
from typing import Any

from cake_jax.methods import cake
from cake_jax.methods.method import Method
from cake_jax.synthesis import SynthesisSettings, Weights, checked
from cake_jax.types import DataSpec


@dataclasses.dataclass(frozen=True)
class NaiveSettings(SynthesisSettings):
    """Settings of `naive`.

    Attributes:
      image_priors: Whether data priors, start and candidates are those of `config.synthesis`. If not, there is no data
        prior, and a sample has one normal start.
    """

    image_priors: bool = False


def prepare(settings: NaiveSettings, spec: DataSpec) -> NaiveSettings:
    """Checks the settings, and removes the contrastive term, the entropy and the schedule.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    if settings.image_priors:
        own: dict[str, Any] = {"weights": dataclasses.replace(settings.weights, contr=0.0, entropy=0.0)}
    else:
        own = {"weights": Weights(cls=settings.weights.cls, contr=0.0), "start": "normal", "candidates": 1}
    return checked(dataclasses.replace(settings, **own, schedule="constant"), spec)


NAIVE = Method(NaiveSettings, cake.make_round, cake.queries, prepare)
