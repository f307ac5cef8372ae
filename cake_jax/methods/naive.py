"""Samples driven to a target class by cross entropy alone, each for itself: DeepDream, or plain gradient inversion.

What CAKE is compared with in its Fig. 1 (arXiv 2306.02090): the same steps without contrast and without a falling step
size. Source: Mordvintsev, Olah, Tyka 2015, *Inceptionism*; as a baseline in Yin et al. 2020 (arXiv 1912.08795).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cake_jax.methods import cake
from cake_jax.synthesis_settings import SynthesisSettings, Weights
from cake_jax.types import DataSpec


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> SynthesisSettings:
    """The same settings with the cross entropy alone, a normal start and a constant step size.

    `own["image_priors"]` leaves the total variation and the start as they are.

    Raises:
      CakeError: The settings do not fit `spec`.
    """
    weights = Weights(cls=common.weights.cls, contr=0.0)
    alone = dataclasses.replace(common, weights=weights, start="normal", schedule="constant")
    if own["image_priors"]:
        weights = dataclasses.replace(weights, tv=common.weights.tv)
        alone = dataclasses.replace(alone, weights=weights, start=common.start)
    return cake.settings(alone, own, spec)


METHOD = cake.METHOD._replace(settings=settings, defaults={"image_priors": False})
