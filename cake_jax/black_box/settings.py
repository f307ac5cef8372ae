"""The settings of a black box."""

import dataclasses

from cake_jax import checks


@dataclasses.dataclass(frozen=True)
class QuerySettings:
    """How a black box is queried.

    Attributes:
      answers: Kind of the answers: "labels", "scores" (probabilities) or "logits".
      budget: Largest number of queries over all runs with one ledger.
      pixels: Whether the source takes inputs in pixel units, clipped to the valid range. Otherwise it takes normalised
        inputs, as a white-box `Teacher` always does.
      max_rows: Largest number of inputs in one request.
      rows_per_second: Largest number of inputs per second. A request holds at most the inputs of one second, but at
        least one.
      requests_per_second: Largest number of requests per second, with repetitions.
      tries: Number of times that a request is sent before the call fails.
      first_wait: Seconds before the first repetition. Each later wait is twice as long. A random time of up to
        `first_wait` is added to each.
      max_wait: Longest wait in seconds. If a server asks for a longer wait, the call fails.

    Raises:
      CakeError: A field is out of range.
    """

    answers: str
    budget: int
    pixels: bool = True
    max_rows: int = 256
    rows_per_second: float = float("inf")
    requests_per_second: float = float("inf")
    tries: int = 6
    first_wait: float = 0.5
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        checks.fields(self)
        for name in ("max_rows", "tries", "rows_per_second", "requests_per_second"):
            checks.above_zero(f"QuerySettings.{name}", getattr(self, name))
        for name in ("budget", "first_wait", "max_wait"):
            checks.not_negative(f"QuerySettings.{name}", getattr(self, name))
