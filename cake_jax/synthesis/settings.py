"""The settings of the synthesis, and their check."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array

from cake_jax import checks, schedules
from cake_jax.precision import PRECISIONS
from cake_jax.starts import STARTS, check as check_start
from cake_jax.synthesis import langevin
from cake_jax.synthesis.priors import PRIORS, Prior
from cake_jax.synthesis.targets import TARGETS, Targets
from cake_jax.types import CakeError, CakeWarning, DataSpec, first_line

CONTRASTIVE = ("mse", "snn")
# An abstract random key.
_KEY = jax.eval_shape(lambda: jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the loss terms.

    Attributes:
      cls: Weight of the cross entropy to the target class.
      contr: Weight of the contrastive term.
      tv: Weight of the data prior `tv`, the total variation of images.
      entropy: Weight of the term that makes a mini-batch use all classes evenly. This term couples the sets.
      priors: Other data priors, as pairs `(prior, weight)`. A prior is a name in `PRIORS`, or a `Prior`.
    """

    cls: float = 1.0
    contr: float = 1.0
    tv: float = 0.0
    entropy: float = 0.0
    priors: tuple[tuple[str | Prior, float], ...] = ()

    def __post_init__(self) -> None:
        checks.fields(self)

    @property
    def data_priors(self) -> tuple[tuple[Prior, float], ...]:
        """All data priors whose weight is not 0, each with its weight."""
        weighed: tuple[tuple[str | Prior, float], ...] = (("tv", self.tv), *self.priors)
        return tuple((PRIORS[p] if isinstance(p, str) else p, weight) for p, weight in weighed if weight)


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """How samples are made. Hashable: equal settings share one compiled program.

    Attributes:
      num_batches: M, the number of mini-batches.
      batch_size: N, the number of samples in a mini-batch.
      num_groups: G, the number of samples in a set, all with different target classes.
      num_steps: T, the number of steps of a sample. With 0, the samples are the start samples.
      step_size: Step size eta of the first mini-batch.
      schedule: How the step size changes over the mini-batches, one of `schedules.SYNTHESIS_SCHEDULES`.
      decay_magnitude: Number of decades by which the step size falls.
      optimizer: Optimizer of the samples, `sgd` or `adam`.
      langevin_temperature: Langevin temperature T_L. 0 is CAKE, 1 is LAKE.
      clip: Whether samples of CAKE, LAKE, naive and inversion are clipped to the valid range of pixels after each step.
      precision: Precision of the teacher's arithmetic, `float32` or `bf16`. Samples and losses are always float32.
      contrastive: The contrastive term: `mse`, `snn`, or a function that maps one set's logits `[G, K]` to a scalar.
      snn_temperature: Temperature of `snn`, in squared logit units.
      weights: Weights of the loss terms.
      start: The start p(x): a name in `STARTS`, or a function `(key, G, spec) -> [G, *shape]`.
      candidates: Number of starts that are drawn for each sample. The teacher chooses one, so that all classes occur:
        see `draw_starts.draw_candidates`. Methods other than CAKE, LAKE, naive and inversion draw one.
      targets: Distribution p(y) of target classes: a name in `TARGETS`, or a function `(key, K, G) -> [G]` int.
      sets_per_chunk: Number of sets in a chunk. A fixed number gives bitwise the same samples on any number of devices.
        0 chooses by the backend and the teacher's cost, and gives the same samples on 1, 2 and 4 devices.
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
    clip: bool = False
    precision: str = "float32"
    contrastive: str | Callable[[Array], Array] = "mse"
    snn_temperature: float = 1.0
    weights: Weights = Weights()
    start: str | Callable[[Array, int, DataSpec], Array] = "normal"
    candidates: int = 1
    targets: str | Targets = "distinct"
    sets_per_chunk: int = 0

    def __post_init__(self) -> None:
        checks.fields(self)

    @property
    def num_sets(self) -> int:
        """S, the number of sets in a mini-batch."""
        return self.batch_size // self.num_groups

    @property
    def num_samples(self) -> int:
        """The number of samples in all mini-batches."""
        return self.num_batches * self.batch_size

    @property
    def couples_sets(self) -> bool:
        """Whether a loss term depends on all sets of a mini-batch at once."""
        return bool(self.weights.entropy) or (self.contrastive == "snn" and bool(self.weights.contr))

    @property
    def draw_start(self) -> Callable[[Array, int, DataSpec], Array]:
        """The function that draws start samples: `start`, or the function with this name."""
        return STARTS[self.start].draw if isinstance(self.start, str) else self.start

    @property
    def draw_targets(self) -> Targets:
        """The function that draws target classes: `targets`, or the function with this name."""
        return TARGETS[self.targets] if isinstance(self.targets, str) else self.targets

    def moved(self, key: Array, x: Array) -> Array:
        """The samples of a set as the objective sees them in one step, `[G, *shape]`. A method may move images.

        Args:
          key: The key of the set and the step.
          x: The samples of the set, `[G, *shape]`.
        """
        return x

    def step_size_of(self, batch: int) -> float:
        """The step size eta(m) of mini-batch m = `batch`."""
        return schedules.step_size(
            batch,
            self.num_batches,
            base=self.step_size,
            decay_magnitude=self.decay_magnitude,
            schedule=self.schedule,
        )


S = TypeVar("S", bound=SynthesisSettings)


def checked(settings: S, spec: DataSpec) -> S:
    """Returns the settings if they suit the specification.

    The numbers of samples in a set and in a mini-batch are lowered to numbers that the classes allow. A `CakeWarning`
    says so.

    Raises:
      CakeError: A value does not fit. The message names its field and what to do.
    """
    for name in ("num_batches", "batch_size", "num_groups", "step_size", "candidates"):
        checks.above_zero(f"synthesis.{name}", getattr(settings, name))
    for name in ("num_steps", "sets_per_chunk"):
        checks.not_negative(f"synthesis.{name}", getattr(settings, name))
    settings = _with_whole_sets(settings, spec.num_classes)
    checks.one_of("synthesis.schedule", settings.schedule, schedules.SYNTHESIS_SCHEDULES)
    checks.one_of("synthesis.precision", settings.precision, PRECISIONS)
    checks.one_of("synthesis.optimizer", settings.optimizer, langevin.OPTIMIZERS)
    checks.not_negative("synthesis.langevin_temperature", settings.langevin_temperature)
    if settings.langevin_temperature and settings.optimizer != "sgd":
        # The stationary distribution would not be the one that the loss defines.
        raise CakeError(
            "synthesis.optimizer: Langevin noise needs 'sgd'; use it or set synthesis.langevin_temperature to 0"
        )
    groups, classes = settings.num_groups, spec.num_classes
    if isinstance(settings.contrastive, str):
        checks.one_of("synthesis.contrastive", settings.contrastive, CONTRASTIVE)
    else:
        logits = jax.ShapeDtypeStruct((groups, classes), np.float32)
        _check_function("synthesis.contrastive", settings.contrastive, logits, ())
    if isinstance(settings.targets, str):
        checks.one_of("synthesis.targets", settings.targets, TARGETS)
    else:
        _check_function("synthesis.targets", lambda key: settings.draw_targets(key, classes, groups), _KEY, (groups,))
    if isinstance(settings.start, str):
        check_start(settings.start, spec, "synthesis.start")
    else:
        shape = (groups, *spec.shape)
        _check_function("synthesis.start", lambda key: settings.draw_start(key, groups, spec), _KEY, shape)
    if settings.contrastive == "snn" and settings.num_sets < 2:
        raise CakeError(
            "synthesis.contrastive: 'snn' needs at least two sets in a mini-batch; raise synthesis.batch_size"
        )
    for prior, weight in (("tv", settings.weights.tv), *settings.weights.priors):
        if isinstance(prior, str):
            checks.one_of("synthesis.weights", prior, PRIORS)
            if weight and PRIORS[prior].needs_images and not spec.is_image:
                raise CakeError(f"synthesis.weights.{prior}: inputs of shape {spec.shape} are no images; set it to 0")
    return settings


def _check_function(field: str, function: Callable[[Any], Any], argument: Any, shape: tuple[int, ...]) -> None:
    """Refuses a user's function that fails or returns an array of another shape. Nothing is computed.

    Raises:
      CakeError: The message has the field, and the error or the wrong result.
    """

    def checked_call(argument: Any) -> Any:
        found = function(argument)
        if getattr(found, "shape", None) != shape or not hasattr(found, "dtype"):
            raise CakeError(f"{field}: the function returns {checks.shown(found)}, not an array of shape {shape}")
        return found

    try:
        jax.eval_shape(checked_call, argument)
    except CakeError:
        raise
    except Exception as error:
        reason = first_line(error).replace("<lambda>", "the function")
        raise CakeError(f"{field}: the function fails: {reason}") from error


def _with_whole_sets(settings: S, num_classes: int) -> S:
    """The settings with sets of at most `num_classes` samples, and with mini-batches of whole sets."""
    groups = min(settings.num_groups, settings.batch_size, num_classes)
    size = settings.batch_size // groups * groups
    changed = []
    if groups != settings.num_groups:
        reason = f"{num_classes} classes" if groups == num_classes else f"mini-batches of {settings.batch_size} samples"
        changed.append(f"synthesis.num_groups: {groups} instead of {settings.num_groups}, because there are {reason}")
    if size != settings.batch_size:
        changed.append(f"synthesis.batch_size: {size} instead of {settings.batch_size}, a multiple of {groups}")
    if not changed:
        return settings
    warnings.warn("; ".join(changed), CakeWarning, stacklevel=3)
    return dataclasses.replace(settings, num_groups=groups, batch_size=size)
