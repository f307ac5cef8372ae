"""Samples that descend the cross entropy to their target class alone, each for itself: DeepDream, gradient inversion.

The baseline of CAKE's Fig. 1 (arXiv 2306.02090): the same steps without the contrastive term and with a constant step
size. Source: Mordvintsev, Olah, Tyka 2015, *Inceptionism*; as a baseline in Yin et al. 2020 (arXiv 1912.08795).
"""

import dataclasses

from cake_jax.methods import cake
from cake_jax.methods.method import Method
from cake_jax.synthesis import SynthesisSettings, Weights, checked
from cake_jax.types import DataSpec


@dataclasses.dataclass(frozen=True)
class NaiveSettings(SynthesisSettings):
    """Settings of `naive`.

    Attributes:
      image_priors: Whether the data priors and the start stay as `config.synthesis` has them. Otherwise there is no
        data prior, and the start is normal.
    """

    image_priors: bool = False


def prepare(settings: NaiveSettings, spec: DataSpec) -> NaiveSettings:
    """The settings with the cross entropy alone and a constant step size.

    Raises:
      CakeError: A setting does not suit the specification.
    """
    if settings.image_priors:
        weights, start = dataclasses.replace(settings.weights, contr=0.0, entropy=0.0), settings.start
    else:
        weights, start = Weights(cls=settings.weights.cls, contr=0.0), "normal"
    return checked(dataclasses.replace(settings, weights=weights, start=start, schedule="constant"), spec)


NAIVE = Method(NaiveSettings, cake.make_round, prepare)
