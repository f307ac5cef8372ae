"""CAKE for teachers that can only be queried: the gradient is estimated from scores; of labels, pairs are bisected.

How a budget is divided: each sample has P = budget / (M N) queries, one of which labels it in the end. A look costs one
for z, and one (antithetic: two) a direction. Directions make the model of the teacher true, looks keep it true as the
sample moves. By default a look has about 2 sqrt(P) directions, so L is about sqrt(P) / 2, and what is over goes to more
directions: the first look finds most of what there is, and P grows into both. The T steps between the looks cost none.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jax import Array

from cake_jax import boundary, zeroth_order
from cake_jax.methods import cake
from cake_jax.methods.method import Method, Queries, Round, combined
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher
from cake_jax.types import CakeError, DataSpec
from cake_jax.zeroth_order import DIRECTIONS, ZerothOrderSettings

SEARCHES = ("auto", "gradient", "boundary")


def settings(common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> ZerothOrderSettings:
    """The common settings with the budget divided; L, q and `directions` are chosen where `own` has 0 and `auto`.

    Raises:
      CakeError: A field cannot work, or the budget is too small for the samples.
    """
    kind = own["directions"]
    if kind == "auto":
        kind = "smooth" if spec.is_image else "coordinate"
    wanted = combined(ZerothOrderSettings, common, {**own, "directions": kind})
    cake.settings(wanted, own, spec)
    _check(wanted, spec)
    count = wanted.num_batches * wanted.batch_size
    per_sample = wanted.budget // count
    pairs = boundary.num_pairs(wanted.batch_size)
    bisections = min(wanted.bisections, (per_sample - 1) * wanted.batch_size // pairs)
    looks, directions = _divided(wanted, per_sample - 1, math.prod(spec.shape))
    if (bisections if wanted.search == "boundary" else directions) < min(1, wanted.num_steps):
        raise CakeError(
            f"methods.zeroth_order.budget: {wanted.budget} leaves {per_sample} queries a sample, which are too few; "
            "raise it or lower synthesis.num_batches"
        )
    return dataclasses.replace(wanted, num_looks=looks, num_directions=directions, bisections=bisections)


def next(
    key: Array,
    state: tuple,
    teacher: Queryable,
    student: Teacher | None,
    settings: ZerothOrderSettings,
    batch: int,
) -> Round:
    """Mini-batch number `batch`; it depends on no other, and not on the student."""
    answers = "logits" if isinstance(teacher, Teacher) else teacher.answers
    by_labels = settings.search == "boundary" or (settings.search == "auto" and answers == "labels")
    result: boundary.BoundaryBatch | zeroth_order.ZerothOrderBatch
    if by_labels:
        result = boundary.minibatch(key, teacher, settings, batch, settings.bisections)
    elif answers == "labels":
        raise CakeError("methods.zeroth_order.search: the teacher answers labels alone, which need 'boundary'")
    else:
        result = zeroth_order.minibatch(key, teacher, settings, batch)
    return Round(state, result.samples, result.info, Queries(forward=result.queries))


def _divided(settings: ZerothOrderSettings, budget: int, size: int) -> tuple[int, int]:
    """L and q of one sample whose looks may cost `budget`; 0 directions where that is too little."""
    sides = 1 + settings.antithetic
    looks, directions = settings.num_looks, settings.num_directions
    if not looks:
        cost = 1 + sides * (directions or min(size, round(2 * math.sqrt(max(budget, 0)) / sides)))
        looks = max(1, budget // cost)
    looks = min(looks, settings.num_steps)
    most = (budget // max(looks, 1) - 1) // sides
    return looks, min(size, most) if not directions else directions * (directions <= most)


def _check(settings: ZerothOrderSettings, spec: DataSpec) -> None:
    for name, allowed in (("search", SEARCHES), ("directions", DIRECTIONS)):
        value = getattr(settings, name)
        if value not in allowed:
            raise CakeError(f"methods.zeroth_order.{name}: '{value}' is not one of {', '.join(allowed)}")
    if settings.directions == "smooth" and not spec.is_image:
        raise CakeError("methods.zeroth_order.directions: 'smooth' ones are of images; set it to 'coordinate'")
    for name in ("budget", "sigma", "trust"):
        if not getattr(settings, name) > 0:
            raise CakeError(f"methods.zeroth_order.{name}: {getattr(settings, name)} must be above 0")
    for name in ("num_looks", "num_directions", "bisections"):
        if getattr(settings, name) < 0:
            raise CakeError(f"methods.zeroth_order.{name}: {getattr(settings, name)} is below 0")
    if settings.num_directions > math.prod(spec.shape):
        raise CakeError(
            f"methods.zeroth_order.num_directions: {settings.num_directions} is more than an input has values"
        )


METHOD = Method(
    settings,
    next,
    defaults={
        "search": "auto",  # gradient; boundary, which needs labels alone; auto: by what the teacher answers
        "budget": 1_000_000,  # queries of the whole synthesis, at most
        "num_looks": 0,  # how often a sample asks anew; 0 from the budget
        "num_directions": 0,  # of a look; 0 from the budget
        "directions": "auto",  # coordinate, smooth (images), or auto: smooth for images
        "sigma": 0.1,  # length of a difference; raise it where scores are rounded
        "antithetic": False,  # differences to both sides, for twice the queries
        "trust": 0.5,  # how far a sample goes between two looks, root mean square
        "bisections": 3,  # of the boundary search, at most
    },
    needs="labels",
)
