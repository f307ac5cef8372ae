"""The settings of `zeroth_order`, and how its budget is divided.

Each sample has P = budget / (M N) queries. The last query labels the sample. A look costs one query for the logits, and
one for each direction, or two if antithetic. More directions make the linear model more accurate. More looks keep the
model accurate while the sample moves. By default a look has about 2 sqrt(P) directions. So the number of looks is about
sqrt(P) / 2. Queries that are left over go to more directions. The T steps between the looks cost no query.
"""

import dataclasses
import math

from cake_jax import checks
from cake_jax.synthesis import SynthesisSettings, checked
from cake_jax.types import CakeError, DataSpec

SEARCHES = ("auto", "gradient", "boundary")
DIRECTIONS = ("coordinate", "smooth")


@dataclasses.dataclass(frozen=True)
class ZerothOrderSettings(SynthesisSettings):
    """Settings of `zeroth_order`. Hashable, like `SynthesisSettings`.

    Attributes:
      search: The kind of search. `gradient` needs scores, `boundary` needs labels, `auto` chooses by the access.
      budget: Highest number of queries of the whole synthesis. A black box lowers it to its own.
      num_looks: Number of looks at the teacher during the T steps of a sample. 0 chooses by the budget.
      num_directions: q, the number of directions of a look. 0 chooses by the budget.
      directions: One of `DIRECTIONS`, or `auto`: smooth for images, else coordinate.
      sigma: L2 length of a finite difference, in normalised units. Rounded scores need a larger length.
      antithetic: Whether finite differences go to both sides of x. Then a direction costs two queries.
      trust: Largest move of a sample between two looks: root mean square over its values, in normalised units.
      bisections: k, the highest number of bisections of the boundary search.
    """

    search: str = "auto"
    budget: int = 1_000_000
    num_looks: int = 0
    num_directions: int = 0
    directions: str = "auto"
    sigma: float = 0.1
    antithetic: bool = False
    trust: float = 0.5
    bisections: int = 3

    @property
    def queries_per_sample(self) -> int:
        """Number of queries of a sample in the gradient search: its looks and the final label."""
        return self.num_looks * (1 + (1 + self.antithetic) * self.num_directions) + 1


def prepare(settings: ZerothOrderSettings, spec: DataSpec) -> ZerothOrderSettings:
    """Returns the checked settings, with the budget divided into looks, directions and bisections.

    Raises:
      CakeError: A value does not fit, or the budget is too small for the number of samples.
    """
    if settings.directions == "auto":
        settings = dataclasses.replace(settings, directions="smooth" if spec.is_image else "coordinate")
    settings = checked(settings, spec)
    _check(settings, spec)
    per_sample = settings.budget // settings.num_samples
    pairs = num_pairs(settings.batch_size)
    bisections = min(settings.bisections, (per_sample - 1) * settings.batch_size // pairs)
    looks, directions = _divided(settings, per_sample - 1, math.prod(spec.shape))
    if (bisections if settings.search == "boundary" else directions) < min(1, settings.num_steps):
        raise CakeError(
            f"methods.zeroth_order.budget: {settings.budget} leaves {per_sample} queries a sample, which are too few; "
            "raise it (and black_box.budget) or lower synthesis.num_batches"
        )
    return dataclasses.replace(settings, num_looks=looks, num_directions=directions, bisections=bisections)


def num_pairs(batch_size: int) -> int:
    """The number of pairs in a mini-batch. If `batch_size` is odd, the last pair's second sample is dropped."""
    return -(-batch_size // 2)


def _divided(settings: ZerothOrderSettings, budget: int, size: int) -> tuple[int, int]:
    """The numbers of looks and directions of a sample for `budget` queries. 0 directions if the budget is too small."""
    sides = 1 + settings.antithetic
    looks, directions = settings.num_looks, settings.num_directions
    if not looks:
        cost = 1 + sides * (directions or min(size, round(2 * math.sqrt(max(budget, 0)) / sides)))
        looks = max(1, budget // cost)
    looks = min(looks, settings.num_steps)
    most = (budget // max(looks, 1) - 1) // sides
    return looks, min(size, most) if not directions else directions * (directions <= most)


def _check(settings: ZerothOrderSettings, spec: DataSpec) -> None:
    field = "methods.zeroth_order"
    checks.one_of(f"{field}.search", settings.search, SEARCHES)
    checks.one_of(f"{field}.directions", settings.directions, DIRECTIONS)
    if settings.directions == "smooth" and not spec.is_image:
        raise CakeError(f"{field}.directions: 'smooth' directions need images; set it to 'coordinate'")
    for name in ("budget", "sigma", "trust"):
        checks.above_zero(f"{field}.{name}", getattr(settings, name))
    for name in ("num_looks", "num_directions", "bisections"):
        checks.not_negative(f"{field}.{name}", getattr(settings, name))
    if settings.num_directions > math.prod(spec.shape):
        raise CakeError(
            f"{field}.num_directions: {settings.num_directions} is more than the {math.prod(spec.shape)} input values"
        )
