"""Samples whose activations have the statistics that the teacher's batch norm has kept.

This is the only method that reads activations inside the teacher. The teacher must be a Flax Linen network with batch
norm. So all networks of `cake_jax.models` with batch norm work, with weights from PyTorch too. Source: DeepInversion,
Yin et al. 2020 (arXiv 1912.08795), equation 4.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax import checks, losses
from cake_jax.methods.cake import queries
from cake_jax.methods.method import Method, Round
from cake_jax.synthesis import SynthesisSettings, checked, minibatch
from cake_jax.synthesis.objective import batch_mean, flat_samples, loss
from cake_jax.teachers import Teacher
from cake_jax.teachers.batch_norm import answer_with_norm_inputs, check_has_statistics
from cake_jax.types import CakeError, DataSpec


@dataclasses.dataclass(frozen=True)
class InversionSettings(SynthesisSettings):
    """Settings of `inversion`.

    Attributes:
      weight: Weight of the statistics relative to the mean cross entropy: alpha_f in the paper.
      step_size: Step size of Adam.
      contrast: Whether the objective has CAKE's contrastive term.
      jitter: Highest number of pixels by which the images of a set are shifted in a step, in each direction. What
        leaves at one side comes in at the other.
      flip: Whether the images of a set are mirrored left to right in half of the steps.
    """

    weight: float = 10.0
    step_size: float = 0.05
    contrast: bool = False
    jitter: int = 0
    flip: bool = False

    @property
    def couples_sets(self) -> bool:
        """True: the statistics depend on all sets of a mini-batch."""
        return True

    def moved(self, key: Array, x: Array) -> Array:
        """The images of a set, shifted and mirrored, `[G, H, W, C]`."""
        shift_key, flip_key = jax.random.split(key)
        if self.jitter:
            shift = jax.random.randint(shift_key, (2,), -self.jitter, self.jitter + 1)
            x = jnp.roll(x, shift, axis=(-3, -2))
        return jnp.where(jax.random.bernoulli(flip_key), jnp.flip(x, axis=-2), x) if self.flip else x

    @property
    def statistics_weight(self) -> float:
        """The weight of the statistics in L. The factor G is here because L_cls sums the cross entropy over a set."""
        return self.weight * self.weights.cls * self.num_groups


def prepare(settings: InversionSettings, spec: DataSpec) -> InversionSettings:
    """Returns the checked settings with Adam and a constant step size.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    if settings.weight <= 0:
        raise CakeError(f"methods.inversion.weight: {settings.weight} must be above 0; without statistics use 'naive'")
    checks.not_negative("methods.inversion.jitter", settings.jitter)
    if (settings.jitter or settings.flip) and not spec.is_image:
        raise CakeError(f"methods.inversion.jitter: inputs of shape {spec.shape} are no images; set it and flip to 0")
    weights = settings.weights if settings.contrast else dataclasses.replace(settings.weights, contr=0.0)
    return checked(dataclasses.replace(settings, weights=weights, schedule="constant", optimizer="adam"), spec)


def make_round(
    key: Array, state: tuple, teacher: Teacher, student: Teacher | None, settings: InversionSettings, batch: int
) -> Round:
    """Makes mini-batch number `batch`.

    Raises:
      CakeError: The teacher has no batch-norm layers.
    """
    check_has_statistics(teacher)
    samples, info = minibatch(key, teacher, settings, batch, objective=objective)
    return Round(state, samples, info)


def objective(
    x: Array, teacher: Teacher, target: Array, mask: Array, settings: InversionSettings
) -> tuple[Array, Array]:
    """CAKE's objective plus the distance of the statistics. For the arguments, see `synthesis.objective.objective`."""
    logits, norm_inputs = answer_with_norm_inputs(teacher, flat_samples(teacher, x))
    logits = logits.astype(jnp.float32).reshape(*target.shape, -1)
    total = loss(logits, x, target, mask, settings)
    for layer in norm_inputs:
        inputs = layer.x.astype(jnp.float32).reshape(*target.shape, -1, layer.x.shape[-1])
        # The moments are computed around the known mean. Subtracting a large square would lose precision.
        shift = batch_mean((inputs - layer.mean).mean(axis=2), mask, settings)
        square = batch_mean(jnp.square(inputs - layer.mean).mean(axis=2), mask, settings)
        moments = layer.mean + shift, square - jnp.square(shift)
        total += settings.statistics_weight * losses.moment_distance(*moments, layer.mean, layer.var)
    return total, logits


INVERSION = Method(InversionSettings, make_round, queries, prepare, access="statistics")
