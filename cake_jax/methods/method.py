"""The signature that every method has: rounds, each of which makes one mini-batch of labelled samples."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from jax import Array

from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.train import TrainSettings
from cake_jax.types import DataSpec, Examples, SampleBatch

# What a teacher may have to give, from the least: each includes those before it.
ANSWERS = ("labels", "scores", "gradients", "statistics")


S = TypeVar("S", bound=SynthesisSettings)


class Queries(NamedTuple):
    """What a round asked of the teacher, in samples.

    Attributes:
      forward: Answers.
      gradient: Answers with the gradient behind them.
    """

    forward: int = 0
    gradient: int = 0


class Round(NamedTuple):
    """What a round leaves.

    Attributes:
      state: For the next round.
      samples: `batch_size` samples with the teacher's logits.
      info: A NamedTuple of floats for the log.
      queries: What they cost.
    """

    state: Any
    samples: SampleBatch
    info: Any
    queries: Queries


class Method(NamedTuple):
    """A way to make samples.

    Attributes:
      settings: `(common, own, spec) -> settings`: what `config.synthesis` and `config.methods.<name>` say, as the
        method reads it: a frozen dataclass that is, or inherits from, `SynthesisSettings`. Raises a `CakeError` that
        names the field which cannot work.
      next: `(key, state, teacher, student, settings, batch) -> Round`: round number `batch`. The key is that of the
        whole synthesis. The teacher is a `Teacher`, or a `BlackBox` if its answers are all that the method needs.
        `student` is None but for methods with `training`.
      init: `(key, spec, settings, data) -> state` before the first round, a pytree of arrays. `data` is None but for
        methods that read it.
      defaults: Of `config.methods.<name>`.
      needs: The least that the teacher must give, one of `ANSWERS`.
      sequential: Whether a round needs the state of the one before. Others may be made in any order, and by several
        processes.
      training: `settings -> TrainSettings`, how the student trains after each round, for so many epochs, on all samples
        that there are by then; None for methods that do not look at the student.
      reads_data: Whether the method is given the real training data, `(x, y)`; then `target` of its samples is the
        student's hard label. No other method sees any.
    """

    settings: Callable[[SynthesisSettings, Mapping[str, Any], DataSpec], Any]
    next: Callable[[Array, Any, Any, Teacher | None, Any, int], Round]
    init: Callable[[Array, DataSpec, Any, Examples | None], Any] = lambda key, spec, settings, data: ()
    defaults: Mapping[str, Any] = MappingProxyType({})
    needs: str = "gradients"
    sequential: bool = False
    training: Callable[[Any], TrainSettings] | None = None
    reads_data: bool = False


def combined(kind: type[S], common: SynthesisSettings, own: Mapping[str, Any]) -> S:
    """Settings of a method's own kind: the common fields, with those of `own` in their place or beside them."""
    return kind(**{**vars(common), **own})
