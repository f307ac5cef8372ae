"""The signature of a method. A method makes rounds, and each round makes one mini-batch of samples."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from cake_jax import checks
from cake_jax.synthesis.settings import SynthesisSettings, checked
from cake_jax.teachers import Teacher
from cake_jax.training.settings import TrainSettings
from cake_jax.types import CakeError, DataSpec, Examples, SampleBatch


class Queries(NamedTuple):
    """Numbers of queries.

    Attributes:
      forward: Number of forward queries.
      gradient: Number of gradient queries.
    """

    forward: int = 0
    gradient: int = 0

    @property
    def evaluations(self) -> int:
        """The cost in forward passes of the teacher. A gradient counts as three."""
        return self.forward + 3 * self.gradient


class Round(NamedTuple):
    """The result of a round.

    Attributes:
      state: The state for the next round.
      samples: `batch_size` samples with the teacher's logits.
      info: A NamedTuple of floats for the log.
      queries: The numbers of queries in the round. The loop over the rounds fills them in, as the method declares them.
    """

    state: Any
    samples: SampleBatch
    info: Any
    queries: Queries = Queries()


@dataclasses.dataclass(frozen=True)
class GuideSettings:
    """How a guide student is trained after each round. The learning rate is constant, and no sample is held out.

    Attributes:
      epochs: Number of passes over the pool after each round.
      batch_size: Number of samples in a training step.
      learning_rate: Learning rate of all steps.
      optimizer: Name of the optimizer: `sgd`, `adam` or `adamw`.
      momentum: Momentum of SGD.
      weight_decay: Weight decay, as in `TrainSettings`.
      augment: Augmentations, as in `TrainSettings`.
    """

    epochs: int = 5
    batch_size: int = 250
    learning_rate: float = 0.05
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.fields(self)

    def training(self) -> TrainSettings:
        """The settings of one round's training."""
        return TrainSettings(schedule="constant", validation_fraction=0.0, **vars(self))


def label_queries(settings: SynthesisSettings, access: str, batch: int) -> Queries:
    """A forward query for each sample: the queries of a method that only labels its samples."""
    return Queries(forward=settings.batch_size)


class Method(NamedTuple):
    """A way to make samples.

    Attributes:
      settings: Class of the settings: `SynthesisSettings`, or a frozen dataclass that inherits from it. The fields that
        the class itself declares become `config.methods.<name>`, with their defaults.
      make_round: `(key, state, teacher, student, settings, batch) -> Round` makes round number `batch`. The key is the
        key of the whole synthesis. The teacher gives at least the method's `access`. `student` is the guide student, or
        None if the method has no guide student. `settings` come from `prepare`.
      queries: `(settings, access, batch) -> Queries` declares the queries of round number `batch`, which need no
        teacher to be counted. `access` is the teacher's access. By default one forward query for each sample.
      prepare: `(settings, spec) -> settings` checks the settings, and fills in values that depend on `spec` or on other
        settings. If a value does not fit, it raises a `CakeError` that names the field.
      init: `(key, spec, settings, data) -> state` makes the state before the first round, a pytree of arrays. `data` is
        None unless the method reads real data.
      access: The least access that the teacher must give, one of `types.ACCESS`.
      sequential: Whether a round needs the state of the round before it. If not, rounds may be made in any order, and
        by several processes.
      guide: `settings -> GuideSettings` says how the guide student is trained after each round. None if the method has
        no guide student.
      reads_data: Whether the method receives the real training data, `(x, classes)`. If so, the hard label in the
        student's loss is the sample's `target`.
    """

    settings: type[SynthesisSettings]
    make_round: Callable[[Array, Any, Any, Teacher | None, Any, int], Round]
    queries: Callable[[Any, str, int], Queries] = label_queries
    prepare: Callable[[Any, DataSpec], Any] = checked
    init: Callable[[Array, DataSpec, Any, Examples | None], Any] = lambda key, spec, settings, data: ()
    access: str = "gradients"
    sequential: bool = False
    guide: Callable[[Any], GuideSettings] | None = None
    reads_data: bool = False


def total_queries(method: Method, settings: SynthesisSettings, access: str) -> Queries:
    """The queries of all rounds, for a teacher that gives `access`. `settings` come from `prepare`."""
    rounds = [method.queries(settings, access, batch) for batch in range(settings.num_batches)]
    return Queries(*map(sum, zip(*rounds, strict=True)))


def own_fields(kind: type[SynthesisSettings]) -> dict[str, dataclasses.Field]:
    """The fields that the class `kind` adds to `SynthesisSettings`, or declares again with another default."""
    declared = {
        name
        for base in kind.__mro__[: kind.__mro__.index(SynthesisSettings)]
        for name in vars(base).get("__annotations__", {})
    }
    return {field.name: field for field in dataclasses.fields(kind) if field.name in declared}


def within_budget(settings: Any, budget: int) -> Any:
    """The settings of a method, with a budget of their own that is at most `budget`. Others are unchanged."""
    if not hasattr(settings, "budget"):
        return settings
    return dataclasses.replace(settings, budget=min(settings.budget, budget))


def with_method_defaults(kind: type[SynthesisSettings], settings: SynthesisSettings) -> SynthesisSettings:
    """Converts settings to a method's own class.

    Args:
      kind: The class, `Method.settings`.
      settings: Settings of the class `kind`, or plain `SynthesisSettings`.

    Returns:
      Settings of the class `kind`. Plain settings are converted, and fields left at their default get the method's
      default. Other settings are returned unchanged.

    Raises:
      CakeError: The settings belong to another method.
    """
    if isinstance(settings, kind):
        return settings
    checks.kind("settings", settings, SynthesisSettings, f"a {kind.__name__}")
    if type(settings) is not SynthesisSettings:
        raise CakeError(f"settings: {type(settings).__name__} is for another method; pass {kind.__name__}")
    given = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(SynthesisSettings)
        if getattr(settings, field.name) != field.default
    }
    return kind(**given)
