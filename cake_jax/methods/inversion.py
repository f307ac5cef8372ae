"""The teacher's batch-norm statistics as a prior: samples whose activations have the moments of the training data.

The one method that looks inside the teacher, which must be a Flax Linen network with batch norm: those of
`cake_jax.models`, with PyTorch's weights too. Source: DeepInversion, Yin et al. 2020 (arXiv 1912.08795), equation 4.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax import Array

from cake_jax.methods import cake
from cake_jax.methods.method import Round
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.teachers.statistics import check_has_statistics
from cake_jax.types import CakeError, DataSpec


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> SynthesisSettings:
    """The same settings with the statistics' prior, Adam and a constant step size.

    `own["weight"]` is that of the prior beside a cross entropy of weight 1, alpha_f in the paper;
    `own["contrast"]` keeps CAKE's contrastive term, otherwise each sample goes to its class for itself.

    Raises:
      CakeError: The settings do not fit `spec`.
    """
    if own["weight"] <= 0:
        raise CakeError(f"methods.inversion.weight: {own['weight']} must be above 0; without the prior it is 'naive'")
    weights = dataclasses.replace(
        common.weights,
        contr=common.weights.contr if own["contrast"] else 0.0,
        # L_cls is the sum over a set, G times the mean that the paper weighs against.
        statistics=own["weight"] * common.weights.cls * common.num_groups,
    )
    inverted = dataclasses.replace(
        common, weights=weights, schedule="constant", optimizer="adam", step_size=own["step_size"]
    )
    return cake.settings(inverted, own, spec)


def next(
    key: Array, state: tuple, teacher: Teacher, student: Teacher | None, settings: SynthesisSettings, batch: int
) -> Round:
    """Mini-batch number `batch`.

    Raises:
      CakeError: The teacher has no batch-norm layers.
    """
    check_has_statistics(teacher)
    return cake.next(key, state, teacher, student, settings, batch)


METHOD = cake.METHOD._replace(
    settings=settings,
    next=next,
    defaults={"weight": 10.0, "step_size": 0.05, "contrast": False},
    needs="statistics",
)
