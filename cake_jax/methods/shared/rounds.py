"""The loop over a method's rounds."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jax import Array

from cake_jax.methods.method import Method, Round
from cake_jax.methods.shared.guide_student import GuideStudent
from cake_jax.synthesis import SynthesisSettings
from cake_jax.types import Queryable


class RoundResult(NamedTuple):
    """A finished round.

    Attributes:
      batch: Number of the round.
      round: The result of `Method.make_round`, with the declared queries.
      figures: Values for the log: the method's diagnostics, and the guide student's loss and accuracy.
    """

    batch: int
    round: Round
    figures: dict[str, float]


def make_rounds(
    key: Array,
    method: Method,
    settings: SynthesisSettings,
    teacher: Queryable,
    state: Any,
    batches: Iterable[int],
    guide: GuideStudent | None = None,
) -> Iterator[RoundResult]:
    """Makes rounds one after another.

    Args:
      key: The key of the whole synthesis.
      method: The method.
      settings: Settings that `method.prepare` returned.
      teacher: The teacher, which gives at least `method.access`.
      state: The state before the first of these rounds, from `method.init` or saved after an earlier round.
      batches: Numbers of the rounds, in order.
      guide: The guide student, if the method has one.

    Yields:
      The result of each round, after the guide student has trained on the pool.
    """
    for batch in batches:
        result = method.make_round(key, state, teacher, guide.model if guide else None, settings, batch)
        result = result._replace(queries=method.queries(settings, teacher.access, batch))
        figures = result.info._asdict()
        if guide:
            figures |= guide.train_on(result.samples, batch)
        state = result.state
        yield RoundResult(batch, result, figures)
