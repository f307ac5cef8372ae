"""How samples are made: the settings of the synthesis, and what of them cannot work."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from cake_jax import langevin, losses, priors, schedules
from cake_jax.types import CakeError, DataSpec

PRECISIONS = {"float32": jnp.float32, "bf16": jnp.bfloat16}
CONTRASTIVE = ("mse", "snn")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the loss terms.

    Attributes:
      cls: Cross entropy to the target class.
      contr: Contrastive pull within a set.
      tv: The data prior, total variation by default.
      entropy: Evenness of the classes over a mini-batch; couples its sets.
      statistics: Distance from the moments that the teacher's batch norm remembers; couples the sets too.
    """

    cls: float = 1.0
    contr: float = 1.0
    tv: float = 0.0
    entropy: float = 0.0
    statistics: float = 0.0


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """How samples are made. Hashable: one compiled program serves all equal settings.

    Attributes:
      num_batches: M, mini-batches.
      batch_size: N, samples a mini-batch.
      num_groups: G, samples a set, each of another target class.
      num_steps: T; 0 leaves the start samples as they are.
      step_size: eta of the first mini-batch.
      schedule: Of the step size over the mini-batches, one of `schedules.SYNTHESIS_SCHEDULES`.
      decay_magnitude: Decades that the step size falls.
      optimizer: `sgd` or `adam`.
      langevin_temperature: 0 is CAKE, 1 is LAKE.
      precision: Of the teacher's arithmetic, `float32` or `bf16`; samples and losses are float32 always.
      contrastive: `mse`, `snn`, or a function of one set's logits `[G, K]` that returns a scalar.
      snn_temperature: Of `snn`.
      weights: Of the loss terms.
      start: p(x): `normal`, for images `smooth` or `contrasted`, or a function `(key, G, spec) -> [G, *shape]`.
      targets: p(y), `(key, num_classes, num_groups) -> [G]` int.
      prior: The data prior that `weights.tv` weighs, samples `[..., *shape]` to a value each, `[...]`.
      sets_per_chunk: Sets that take their T steps together; 0 chooses by backend and cost of the teacher, alike on 1, 2
        and 4 devices. Samples are bitwise the same on any number of devices for one value of it.
    """

    num_batches: int = 10
    batch_size: int = 500
    num_groups: int = 10
    num_steps: int = 256
    step_size: float = 0.1
    schedule: str = "linear"
    decay_magnitude: float = 4.0
    optimizer: str = "sgd"
    langevin_temperature: float = 0.0
    precision: str = "float32"
    contrastive: str | Callable[[Array], Array] = "mse"
    snn_temperature: float = 1.0
    weights: Weights = Weights()
    start: str | priors.Start = "normal"
    targets: Callable[[Array, int, int], Array] = priors.distinct_targets
    prior: Callable[[Array], Array] = losses.total_variation
    sets_per_chunk: int = 0

    @property
    def num_sets(self) -> int:
        """S, sets a mini-batch."""
        return self.batch_size // self.num_groups

    @property
    def couples_sets(self) -> bool:
        """Whether a loss term depends on all sets of a mini-batch at once."""
        coupling = self.weights.entropy or self.weights.statistics
        return bool(coupling) or (self.contrastive == "snn" and bool(self.weights.contr))


def check(settings: SynthesisSettings, spec: DataSpec) -> None:
    """Refuses settings that cannot work for a data specification.

    Raises:
      CakeError: With the field at fault and the mend.
    """
    positive = ("num_batches", "batch_size", "num_groups", "step_size")
    for name in positive:
        if getattr(settings, name) <= 0:
            raise CakeError(f"synthesis.{name}: {getattr(settings, name)} must be above 0")
    for name in ("num_steps", "sets_per_chunk"):
        if getattr(settings, name) < 0:
            raise CakeError(f"synthesis.{name}: {getattr(settings, name)} is below 0")
    if settings.num_groups > spec.num_classes:
        raise CakeError(
            f"synthesis.num_groups: {settings.num_groups} groups need as many classes, the data has {spec.num_classes}"
        )
    if settings.batch_size % settings.num_groups:
        raise CakeError(
            f"synthesis.batch_size: {settings.batch_size} is not a multiple of num_groups = {settings.num_groups}"
        )
    if settings.schedule not in schedules.SYNTHESIS_SCHEDULES:
        raise CakeError(
            f"synthesis.schedule: '{settings.schedule}' is not one of {', '.join(schedules.SYNTHESIS_SCHEDULES)}"
        )
    if settings.precision not in PRECISIONS:
        raise CakeError(f"synthesis.precision: '{settings.precision}' is not one of {', '.join(PRECISIONS)}")
    if isinstance(settings.contrastive, str) and settings.contrastive not in CONTRASTIVE:
        raise CakeError(f"synthesis.contrastive: '{settings.contrastive}' is not one of {', '.join(CONTRASTIVE)}")
    if isinstance(settings.start, str) and settings.start not in priors.STARTS:
        raise CakeError(f"synthesis.start: '{settings.start}' is not one of {', '.join(priors.STARTS)}")
    if settings.start in priors.IMAGE_STARTS and not spec.is_image:
        raise CakeError(f"synthesis.start: inputs of shape {spec.shape} are no images; set it to 'normal'")
    if settings.contrastive == "snn" and settings.num_sets < 2:
        raise CakeError("synthesis.contrastive: 'snn' needs two sets or more a mini-batch; raise synthesis.batch_size")
    if settings.prior is losses.total_variation and settings.weights.tv and not spec.is_image:
        raise CakeError(f"synthesis.weights.tv: inputs of shape {spec.shape} are no images; set it to 0")
    langevin.check_optimizer(settings.optimizer, settings.langevin_temperature)
