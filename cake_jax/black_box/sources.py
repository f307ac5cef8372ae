"""The sources of a black box's answers: an endpoint, a function or a white-box teacher."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax import checks
from cake_jax.black_box.endpoint import Endpoint
from cake_jax.black_box.settings import QuerySettings
from cake_jax.teachers.teacher import Teacher
from cake_jax.types import Array, CakeError, DataSpec


def as_ask(
    source: Callable[[np.ndarray], Any] | Endpoint | Teacher, spec: DataSpec, settings: QuerySettings
) -> Callable[[np.ndarray, str], Any]:
    """The function `(x [B, *shape] float32, key) -> answers` that sends one request once.

    Equal inputs have equal keys. The answers are unchecked. `Unanswered`, `ConnectionError` and `TimeoutError` mean
    that the request can be repeated.

    Raises:
      CakeError: The source is no function, endpoint or teacher, or the specification of a teacher is not `spec`.
    """
    if isinstance(source, Teacher):
        if source.spec != spec:
            raise CakeError("teacher: its specification is not the given one; pass teacher.spec")
        return lambda x, key: _answers_of(source, x, settings)
    if isinstance(source, Endpoint):
        return source.ask
    if isinstance(source, type) or not callable(source):
        raise CakeError(f"source: {checks.shown(source)} is not a function, an Endpoint or a Teacher")
    return lambda x, key: source(x)


def _answers_of(teacher: Teacher, x: np.ndarray, settings: QuerySettings) -> np.ndarray:
    # All requests have one size, so that the forward pass compiles once.
    padded = np.zeros((max(len(x), settings.max_rows), *x.shape[1:]), np.float32)
    padded[: len(x)] = x
    return np.asarray(_answers(teacher, padded, settings.answers))[: len(x)]


@functools.partial(jax.jit, static_argnums=2)
def _answers(teacher: Teacher, x: Array, kind: str) -> jax.Array:
    logits = teacher(jnp.asarray(x)).astype(jnp.float32)
    if kind == "labels":
        return logits.argmax(-1)
    return jax.nn.softmax(logits) if kind == "scores" else logits
