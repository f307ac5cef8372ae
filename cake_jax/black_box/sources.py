"""The sources of a black box's answers: an endpoint, a function or a white-box teacher."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cake_jax import checks
from cake_jax.black_box.endpoint import Endpoint
from cake_jax.black_box.settings import QuerySettings
from cake_jax.teachers.teacher import Teacher
from cake_jax.types import Array, CakeError, DataSpec


class Source(Protocol):
    """An object that answers requests, such as an `Endpoint`."""

    @property
    def takes_pixels(self) -> bool:
        """Whether it can take inputs in pixel units. If not, it always takes normalised inputs."""
        ...

    def ask(self, x: np.ndarray, key: str) -> Any:
        """Sends one request once.

        Args:
          x: Inputs `[B, *shape]` float32.
          key: Key of the request. Equal inputs have equal keys.

        Returns:
          The unchecked answers: labels `[B]`, or scores or logits `[B, K]`.

        Raises:
          Unanswered, ConnectionError, TimeoutError: The request can be repeated.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FunctionSource:
    """A function of inputs `[B, *shape]` to answers.

    Attributes:
      function: The function.
    """

    takes_pixels: ClassVar[bool] = True

    function: Callable[[np.ndarray], Any]

    def ask(self, x: np.ndarray, key: str) -> Any:
        """Answers of the function for x `[B, *shape]`. The key is ignored."""
        return self.function(x)


@dataclasses.dataclass(frozen=True)
class TeacherSource:
    """A white-box teacher that gives only answers.

    Attributes:
      teacher: The teacher.
      answers: Kind of the answers, one of `answer_kinds.KINDS`.
      max_rows: Number of inputs that smaller requests are padded to.
    """

    takes_pixels: ClassVar[bool] = False

    teacher: Teacher
    answers: str
    max_rows: int

    def ask(self, x: np.ndarray, key: str) -> np.ndarray:
        """Answers of the teacher for normalised x `[B, *shape]`. The key is ignored."""
        # All requests have one size, so that the forward pass compiles once.
        padded = np.zeros((max(len(x), self.max_rows), *x.shape[1:]), np.float32)
        padded[: len(x)] = x
        return np.asarray(_answers(self.teacher, padded, self.answers))[: len(x)]


def as_source(
    source: Callable[[np.ndarray], Any] | Endpoint | Teacher, spec: DataSpec, settings: QuerySettings
) -> Source:
    """Returns the `Source` for a function, an endpoint or a teacher.

    Raises:
      CakeError: The source is something else, or the specification of a teacher is not `spec`.
    """
    if isinstance(source, Teacher):
        if source.spec != spec:
            raise CakeError("teacher: its specification is not the given one; pass teacher.spec")
        return TeacherSource(source, settings.answers, settings.max_rows)
    if isinstance(source, Endpoint):
        return source
    if isinstance(source, type) or not callable(source):
        raise CakeError(f"source: {checks.shown(source)} is not a function, an Endpoint or a Teacher")
    return FunctionSource(source)


@functools.partial(jax.jit, static_argnums=2)
def _answers(teacher: Teacher, x: Array, kind: str) -> jax.Array:
    logits = teacher(jnp.asarray(x)).astype(jnp.float32)
    if kind == "labels":
        return logits.argmax(-1)
    return jax.nn.softmax(logits) if kind == "scores" else logits
