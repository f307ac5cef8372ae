"""CAKE for black boxes. With scores it estimates gradients. With labels alone it bisects pairs."""

from jax import Array

from cake_jax.methods.method import Method, Queries, Round
from cake_jax.methods.zeroth_order import boundary_pairs, gradient_search
from cake_jax.methods.zeroth_order.settings import ZerothOrderSettings, num_pairs, prepare
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, Queryable


def make_round(
    key: Array, state: tuple, teacher: Queryable, student: Teacher | None, settings: ZerothOrderSettings, batch: int
) -> Round:
    """Makes mini-batch number `batch`, independently of all others.

    Raises:
      CakeError: `settings.search` is `gradient`, but the teacher gives labels alone.
    """
    search = boundary_pairs if searches_boundary(settings, teacher.access) else gradient_search
    samples, info = search.minibatch(key, teacher, settings, batch)
    return Round(state, samples, info)


def queries(settings: ZerothOrderSettings, access: str, batch: int) -> Queries:
    """The start samples and their bisections in the boundary search, or the looks and labels in the gradient search.

    Raises:
      CakeError: `settings.search` is `gradient`, but the teacher gives labels alone.
    """
    if searches_boundary(settings, access):
        return Queries(forward=settings.batch_size + num_pairs(settings.batch_size) * settings.bisections)
    return Queries(forward=settings.batch_size * settings.queries_per_sample)


def searches_boundary(settings: ZerothOrderSettings, access: str) -> bool:
    """Whether the search is the boundary search, for a teacher that gives this access.

    Raises:
      CakeError: `settings.search` is `gradient`, but the teacher gives labels alone.
    """
    if settings.search == "gradient" and access == "labels":
        raise CakeError("methods.zeroth_order.search: the teacher answers labels alone; set it to 'boundary'")
    return settings.search == "boundary" or access == "labels"


ZEROTH_ORDER = Method(ZerothOrderSettings, make_round, queries, prepare, access="labels")

__all__ = ["ZEROTH_ORDER", "ZerothOrderSettings", "make_round", "prepare", "queries", "searches_boundary"]
