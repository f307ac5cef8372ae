"""Teachers that can only be queried: each query counts, and each answer is kept."""

import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tenacity

from cake_jax.teachers.answers import checked, room, to_logits
from cake_jax.teachers.endpoint import Endpoint, Unanswered
from cake_jax.teachers.ledger import Ledger, Request, Terms, digests
from cake_jax.teachers.teacher import Teacher
from cake_jax.types import Array, CakeError, DataSpec, first_line

_WORTH_A_REPETITION = (Unanswered, ConnectionError, TimeoutError)


@dataclasses.dataclass(frozen=True)
class QuerySettings:
    """How a teacher is queried.

    Attributes:
      answers: What it answers: "labels", "scores" (probabilities) or "logits".
      budget: Rows that it may be asked for in all, over all runs with one ledger.
      pixels: Whether it sees inputs in pixel units, clipped to the valid range, else normalised. A `Teacher` always
        sees them normalised.
      max_rows: Most rows a request.
      rows_per_second: Most rows a second. A request has no more than a second's worth, but one row at least.
      requests_per_second: Most requests a second, repetitions included.
      tries: How often a request is sent before it is given up.
      first_wait: Seconds before the first repetition; then twice as many each time, and up to `first_wait` more by
        chance.
      max_wait: Longest wait in seconds. A server that asks for a longer one ends the run.

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
        for name in ("max_rows", "tries", "rows_per_second", "requests_per_second"):
            if not getattr(self, name) > 0:
                raise CakeError(f"QuerySettings.{name}: {getattr(self, name)} must be above 0")
        for name in ("budget", "first_wait", "max_wait"):
            if not getattr(self, name) >= 0:
                raise CakeError(f"QuerySettings.{name}: {getattr(self, name)} is below 0")


class BlackBox:
    """A teacher that can only be queried.

    A row that was answered once is never asked again, and a row is paid for before it is sent. A request that broke
    off is repeated under the same key, by the next run too: with its ledger a run goes on where another stopped.

    Attributes:
      spec: The input domain.
      answers: "labels", "scores" (probabilities) or "logits".
      inner: The `Teacher` behind it, where there is one: for evaluation, which is not part of the budget.
      num_params: None, for nobody knows.
    """

    num_params = None

    def __init__(
        self,
        source: Callable[[np.ndarray], Any] | Endpoint | Teacher,
        spec: DataSpec,
        settings: QuerySettings,
        ledger: str | Path | None = None,
    ) -> None:
        """Opens the ledger; nothing is asked.

        Args:
          source: What is asked: a function of inputs `[B, *shape]` float32 to the answers, labels `[B]` or scores or
            logits `[B, K]`, which may raise `Unanswered`, `ConnectionError` or `TimeoutError` to be called again; an
            endpoint; or a `Teacher` in disguise, whose logits become what `settings.answers` says.
          spec: The input domain.
          settings: How it is asked.
          ledger: The file that keeps queries and answers. None: they go with the process.

        Raises:
          CakeError: A `Teacher` is of another domain, or the ledger cannot be used, as `Ledger` says.
        """
        self.inner = source if isinstance(source, Teacher) else None
        if self.inner is not None and self.inner.spec != spec:
            raise CakeError("teacher: its domain is not the one given; give teacher.spec")
        self.spec, self.answers = spec, settings.answers
        self._settings = settings
        self._ask = _way_to_ask(source, settings)
        self._pixels = settings.pixels and self.inner is None
        self._ledger = Ledger(ledger, Terms(spec, settings.answers, self._pixels))
        self._rate = _Rate(settings.rows_per_second, settings.requests_per_second)
        self._one_at_a_time = threading.Lock()

    @property
    def queries(self) -> int:
        """Rows paid for so far, in all runs with this ledger: answered, or sent at least as far as we know."""
        return self._ledger.num_rows

    def __call__(self, x: Array) -> np.ndarray:
        """Logits `[B, K]` float32 at normalised inputs x `[B, *shape]`; `answers.to_logits` says how answers become so.

        Requests are cut from x by position, so that the same call makes the same ones.

        Raises:
          CakeError: The budget would not do for all of x, and nothing is sent; inputs or answers are not what they
            should be; or the teacher refuses or cannot be reached, then the next call goes on.
        """
        x = np.asarray(x, np.float32)
        if x.shape[1:] != self.spec.shape or not np.isfinite(x).all():
            raise CakeError(f"teacher: inputs must be finite and of shape {self.spec.shape}, not {x.shape[1:]}")
        names = digests(x)
        with self._one_at_a_time:
            found = self._ledger.find(names)
            new = {name: i for i, name in reversed([*enumerate(names)]) if name not in found}
            spent, budget = self.queries, self._settings.budget
            if new and spent + len(new) > budget:
                raise CakeError(
                    f"teacher: {len(new)} more queries are beyond the budget of {budget}, of which {spent} are spent"
                )
            waiting = {name for name, answer in found.items() if answer is None}
            for request in self._ledger.pending() if waiting else ():
                if not waiting.isdisjoint(digests(request.x)):
                    self._settle(request)
            for _, rows in itertools.groupby(sorted(new.values()), key=lambda i: i // self._rows_a_request):
                self._settle(self._ledger.reserve(x[list(rows)]))
            found = self._ledger.find(names)
        answers = room(self.answers, len(x), self.spec.num_classes)
        for i, name in enumerate(names):
            answers[i] = found[name]
        return to_logits(answers, self.answers, self.spec.num_classes)

    def close(self) -> None:
        """Closes the ledger, so that another process may open it."""
        self._ledger.close()

    @property
    def _rows_a_request(self) -> int:
        settings = self._settings
        return int(max(1, min(settings.max_rows, settings.rows_per_second)))

    def _settle(self, request: Request) -> None:
        """Sends a reserved request until it is answered, and records the answers."""
        settings = self._settings
        x = self.spec.denormalize(request.x) if self._pixels else request.x
        backoff = tenacity.wait_exponential(settings.first_wait) + tenacity.wait_random(0, settings.first_wait)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_WORTH_A_REPETITION),
            stop=tenacity.stop_after_attempt(settings.tries),
            wait=lambda state: max(
                min(backoff(state), settings.max_wait), _after(state.outcome.exception() if state.outcome else None)
            ),
            sleep=lambda seconds: time.sleep(seconds),
            reraise=True,
        )
        try:
            answers = retrying(self._try, x, request.key)
        except _WORTH_A_REPETITION as error:
            raise CakeError(
                f"teacher: no answer in {settings.tries} tries ({first_line(error)}); run again to go on"
            ) from error
        self._ledger.record(request, checked(answers, self.answers, len(x), self.spec.num_classes))

    def _try(self, x: np.ndarray, key: str) -> Any:
        self._rate.wait(len(x))
        try:
            return self._ask(x, key)
        except _WORTH_A_REPETITION as error:
            if _after(error) > self._settings.max_wait:
                raise CakeError(f"teacher: {error}, and is to be left alone for {_after(error):.0f} s") from error
            raise
        except CakeError:
            raise
        except Exception as error:
            raise CakeError(f"teacher: fails on inputs of shape {x.shape}: {first_line(error)}") from error


class _Rate:
    """Spaces requests so that none of two limits is passed."""

    def __init__(self, rows_per_second: float, requests_per_second: float) -> None:
        self._rows_per_second, self._requests_per_second = rows_per_second, requests_per_second
        self._next = -float("inf")

    def wait(self, num_rows: int) -> None:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + max(num_rows / self._rows_per_second, 1 / self._requests_per_second)


def _after(error: BaseException | None) -> float:
    return error.after if isinstance(error, Unanswered) else 0.0


def _way_to_ask(
    source: Callable[[np.ndarray], Any] | Endpoint | Teacher, settings: QuerySettings
) -> Callable[[np.ndarray, str], Any]:
    """The source as a function of inputs and a request's key."""
    if isinstance(source, Endpoint):
        return source.ask
    if not isinstance(source, Teacher):
        return lambda x, key: source(x)

    def ask(x: np.ndarray, key: str) -> np.ndarray:
        # All requests are of one size then, and compiled once.
        padded = np.zeros((max(len(x), settings.max_rows), *x.shape[1:]), np.float32)
        padded[: len(x)] = x
        return np.asarray(_answer(source, padded, settings.answers))[: len(x)]

    return ask


@functools.partial(jax.jit, static_argnums=2)
def _answer(teacher: Teacher, x: Array, kind: str) -> jax.Array:
    logits = teacher(jnp.asarray(x)).astype(jnp.float32)
    if kind == "labels":
        return logits.argmax(-1)
    return jax.nn.softmax(logits) if kind == "scores" else logits
