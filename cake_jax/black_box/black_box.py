"""A teacher that only answers queries. Each query is counted, and each answer is kept in a ledger."""

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tenacity

from cake_jax.black_box.answer_kinds import checked_answers, empty_answers, to_logits
from cake_jax.black_box.endpoint import Endpoint, Unanswered
from cake_jax.black_box.ledger import Ledger, Request, Terms, digests
from cake_jax.black_box.settings import QuerySettings
from cake_jax.black_box.sources import as_ask
from cake_jax.teachers.teacher import Teacher
from cake_jax.types import Array, CakeError, DataSpec, first_line

# Errors after which a request is repeated.
_TEMPORARY = (Unanswered, ConnectionError, TimeoutError)


class BlackBox:
    """A teacher that only answers queries.

    An input is queried once, and its later answers come from the ledger. A query is charged before it is sent. A failed
    request is repeated under the same key, also by a later run. With the same ledger, a run continues where an earlier
    run stopped.

    Attributes:
      spec: Specification of the inputs.
      answers: Kind of the answers: "labels", "scores" (probabilities) or "logits".
      num_params: None, because the number of parameters is unknown.
    """

    num_params = None

    def __init__(
        self,
        source: Callable[[np.ndarray], Any] | Endpoint | Teacher,
        spec: DataSpec,
        settings: QuerySettings,
        ledger: str | Path | None = None,
    ) -> None:
        """Opens the ledger. It sends no query.

        Args:
          source: A function, an endpoint or a `Teacher`. A function takes inputs `[B, *shape]` float32 and returns
            labels `[B]`, or scores or logits `[B, K]`. If it raises `Unanswered`, `ConnectionError` or `TimeoutError`,
            it is called again. The logits of a `Teacher` are converted to the answers that `settings.answers` names.
          spec: Specification of the inputs.
          settings: How the source is queried.
          ledger: File of queries and answers. None keeps them in memory only.

        Raises:
          CakeError: The specification of a `Teacher` is not `spec`, or the ledger cannot be used (see `Ledger`).
        """
        self.spec, self.answers = spec, settings.answers
        self._settings = settings
        self._ask = as_ask(source, spec, settings)
        self._pixels = settings.pixels and not isinstance(source, Teacher)
        self._ledger = Ledger(ledger, Terms(spec, settings.answers, self._pixels))
        self._rate = _RateLimit(settings.rows_per_second, settings.requests_per_second)
        self._lock = threading.Lock()

    @property
    def access(self) -> str:
        """The kind of access in `types.ACCESS`: "labels", or "scores" if the answers are scores or logits."""
        return "labels" if self.answers == "labels" else "scores"

    @property
    def budget(self) -> int:
        """Largest number of queries over all runs with this ledger."""
        return self._settings.budget

    @property
    def queries(self) -> int:
        """Number of queries charged so far, over all runs with this ledger, whether they were answered or not."""
        return self._ledger.num_rows

    def predict(self, x: Array) -> np.ndarray:
        """Logits `[B, K]` float32 on the host of normalised inputs x `[B, *shape]`.

        `answer_kinds.to_logits` converts the answers. Inputs are split into requests by their position in x, so that a
        repeated call makes the same requests.

        Raises:
          CakeError: x is traced by JAX, has another shape, or is not finite. The remaining budget is too small for x;
            then no query is sent. The source fails, or its answers are invalid; then the next call continues. A file
            beside the ledger keeps invalid answers.
        """
        if isinstance(x, jax.core.Tracer):
            raise CakeError(
                "teacher: a black box gives no gradient and cannot be compiled by JAX; "
                "use a method that needs scores or labels"
            )
        x = np.asarray(x, np.float32)
        if x.shape[1:] != self.spec.shape:
            raise CakeError(f"teacher: each input has shape {x.shape[1:]}, not {self.spec.shape}")
        if not np.isfinite(x).all():
            raise CakeError("teacher: its inputs must be finite")
        row_digests = digests(x)
        with self._lock:
            known = self._ledger.find(row_digests)
            new = {digest: i for i, digest in reversed([*enumerate(row_digests)]) if digest not in known}
            self._check_budget(len(new))
            unanswered = {digest for digest, answer in known.items() if answer is None}
            for request in self._ledger.pending() if unanswered else ():
                if not unanswered.isdisjoint(digests(request.x)):
                    self._complete(request)
            for _, rows in itertools.groupby(sorted(new.values()), key=lambda i: i // self._request_size):
                self._complete(self._ledger.reserve(x[list(rows)]))
            known = self._ledger.find(row_digests)
        answers = empty_answers(self.answers, len(x), self.spec.num_classes)
        for i, digest in enumerate(row_digests):
            answers[i] = known[digest]
        return to_logits(answers, self.answers, self.spec.num_classes)

    def __call__(self, x: Array) -> np.ndarray:
        """The same as `predict`."""
        return self.predict(x)

    def close(self) -> None:
        """Closes the ledger, so that another process may open it."""
        self._ledger.close()

    @property
    def _request_size(self) -> int:
        settings = self._settings
        return int(max(1, min(settings.max_rows, settings.rows_per_second)))

    def _check_budget(self, num_new: int) -> None:
        spent, budget = self.queries, self._settings.budget
        if num_new and spent + num_new > budget:
            raise CakeError(
                f"teacher: {num_new} more queries are beyond the budget of {budget}, of which {spent} are spent; "
                "raise the budget"
            )

    def _complete(self, request: Request) -> None:
        """Sends a reserved request until it is answered, and records the answers."""
        settings = self._settings
        x = self.spec.denormalize(request.x) if self._pixels else request.x
        backoff = tenacity.wait_exponential(settings.first_wait) + tenacity.wait_random(0, settings.first_wait)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TEMPORARY),
            stop=tenacity.stop_after_attempt(settings.tries),
            wait=lambda state: max(
                min(backoff(state), settings.max_wait),
                _requested_wait(state.outcome.exception() if state.outcome else None),
            ),
            sleep=lambda seconds: time.sleep(seconds),
            reraise=True,
        )
        try:
            answers = retrying(self._send, x, request.key)
        except _TEMPORARY as error:
            raise CakeError(
                f"teacher: no answer in {settings.tries} tries ({first_line(error)}); run again to go on"
            ) from error
        try:
            valid = checked_answers(answers, self.answers, len(x), self.spec.num_classes)
        except CakeError as error:
            raise CakeError(f"{error}{self._ledger.keep_refused(request, answers)}") from error
        self._ledger.record(request, valid)

    def _send(self, x: np.ndarray, key: str) -> Any:
        """Sends a request once."""
        self._rate.wait(len(x))
        try:
            return self._ask(x, key)
        except _TEMPORARY as error:
            if _requested_wait(error) > self._settings.max_wait:
                raise CakeError(
                    f"teacher: {error}; it asks for a wait of {_requested_wait(error):.0f} s, which is longer than "
                    "max_wait; run again later"
                ) from error
            raise
        except CakeError:
            raise
        except Exception as error:
            raise CakeError(f"teacher: fails on inputs of shape {x.shape}: {first_line(error)}") from error


class _RateLimit:
    """Spaces requests so that they keep to the rates of inputs and of requests."""

    def __init__(self, rows_per_second: float, requests_per_second: float) -> None:
        self._rows_per_second, self._requests_per_second = rows_per_second, requests_per_second
        self._next = -float("inf")

    def wait(self, num_rows: int) -> None:
        """Waits until a request of `num_rows` inputs may be sent."""
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + max(num_rows / self._rows_per_second, 1 / self._requests_per_second)


def _requested_wait(error: BaseException | None) -> float:
    """Seconds that a server asked to wait before the repetition, or 0."""
    return error.after if isinstance(error, Unanswered) else 0.0
