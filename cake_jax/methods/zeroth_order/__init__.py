"""CAKE for black boxes. With scores it estimates gradients. With labels alone it bisects pairs."""

from jax import Array

from cake_jax.methods.method import Method, Queries, Round
from cake_jax.methods.zeroth_order import boundary_pairs, gradient_search
from cake_jax.methods.zeroth_order.settings import ZerothOrderSettings, prepare
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, Queryable


def make_round(
    key: Array, state: tuple, teacher: Queryable, student: Teacher | None, settings: ZerothOrderSettings, batch: int
) -> Round:
    """Makes mini-batch number `batch`, independently of all others.

    Raises:
      CakeError: `settings.search` is `gradient`, but the teacher gives labels alone.
    """
    labels_alone = teacher.access == "labels"
    result: boundary_pairs.BoundaryBatch | gradient_search.ZerothOrderBatch
    if settings.search == "boundary" or (settings.search == "auto" and labels_alone):
        result = boundary_pairs.minibatch(key, teacher, settings, batch)
    elif labels_alone:
        raise CakeError("methods.zeroth_order.search: the teacher answers labels alone; set it to 'boundary'")
    else:
        result = gradient_search.minibatch(key, teacher, settings, batch)
    return Round(state, result.samples, result.info, Queries(forward=result.queries))


ZEROTH_ORDER = Method(ZerothOrderSettings, make_round, prepare, access="labels")

__all__ = ["ZEROTH_ORDER", "ZerothOrderSettings", "make_round", "prepare"]
