"""Views: inputs that are changed in each step of the student's training, and labelled by the teacher on the spot."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import checks, starts
from cake_jax.augment import augment
from cake_jax.starts import STARTS
from cake_jax.teachers import Teacher
from cake_jax.training import adversary
from cake_jax.training.labels import Labels, from_logits
from cake_jax.training.settings import TrainSettings
from cake_jax.types import CakeError, DataSpec, Queryable


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """What happens to a batch before the teacher labels it. Hashable.

    Attributes:
      ask: Whether the teacher labels each batch anew. Otherwise the student learns from stored labels.
      fresh: Starts from which new inputs are drawn in each step, names in `STARTS`. They have equal shares.
      fresh_share: Share of a batch that these new inputs replace.
      mixup: Share of the inputs that are mixed with another one of the batch, by a uniform weight.
      cutmix: Share of the images of which a rectangle comes from another one of the batch.
      adversary: Share of a batch that a generator makes, which learns in the same steps to make student and teacher
        disagree. See `training.adversary`.
      adversary_every: Number of the student's steps for each step of the generator.
      adversary_rate: Learning rate of the generator.
    """

    ask: bool = False
    fresh: tuple[str, ...] = ()
    fresh_share: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0
    adversary: float = 0.0
    adversary_every: int = 5
    adversary_rate: float = 1e-3

    def __post_init__(self) -> None:
        checks.fields(self)

    def queries(self, steps: int, batch_size: int) -> dict[str, int]:
        """The teacher's queries in an epoch: `queries` forward, and `gradient_queries` if there is an adversary."""
        forward = {"queries": steps * batch_size} if self.ask else {}
        learned = -(-steps // self.adversary_every) * batch_size
        return {**forward, "gradient_queries": learned} if self.adversary else forward


# The teacher is not asked.
STORED_LABELS = ViewSettings()


def checked(settings: ViewSettings, spec: DataSpec) -> ViewSettings:
    """Returns the settings unchanged if they suit the specification.

    Raises:
      CakeError: A value does not fit. The message names its field and what to do.
    """
    for name in settings.fresh:
        starts.check(name, spec, "student.views.fresh")
    for name in ("fresh_share", "mixup", "cutmix", "adversary"):
        checks.fraction(f"student.views.{name}", getattr(settings, name), with_one=True)
    if settings.cutmix and not spec.is_image:
        raise CakeError(f"student.views.cutmix: inputs of shape {spec.shape} are no images; set it to 0")
    for name in ("adversary_every", "adversary_rate"):
        checks.above_zero(f"student.views.{name}", getattr(settings, name))
    for name in ("fresh", "mixup", "cutmix", "adversary"):
        if getattr(settings, name) and not settings.ask:
            raise CakeError(f"student.views.{name}: only the teacher can label such inputs; set student.views.ask")
    return settings


def asked(settings: ViewSettings, training: TrainSettings, spec: DataSpec, teacher: Queryable | None) -> dict[str, Any]:
    """The options of `trainer.epochs` with which the teacher labels each batch. Empty if it is not asked.

    A `Teacher` labels within the compiled step. A black box labels on the host.
    """
    if not settings.ask:
        return {}
    assert teacher is not None
    if settings.adversary and not isinstance(teacher, Teacher):
        raise CakeError("student.views.adversary: it needs the teacher's gradients, which a black box withholds")
    labeller = {"context": teacher} if isinstance(teacher, Teacher) else {"answer": teacher.predict}
    return {"make_batch": Views(settings, training.augment, spec), **labeller}


@dataclasses.dataclass(frozen=True)
class Views:
    """Makes the batch of a step, as `MakeBatch` does. Its context is the teacher, or None if it labels on the host.

    Fresh inputs take the place of a device's last examples. Then come `augment`, mixup and cutmix, in this order. At
    last, the adversary's inputs take the place of the first examples. With an adversary, the views learn, as `Learning`
    describes.

    Attributes:
      settings: Settings that `checked` accepts.
      augment: Names in `cake_jax.augment.NAMES`.
      spec: Specification of the inputs.
    """

    settings: ViewSettings
    augment: tuple[str, ...]
    spec: DataSpec

    def __call__(self, keys: Array, x: Array, labels: Labels, teacher: Any) -> tuple[Array, Labels]:
        """The views `[B, *shape]` and the teacher's answers to them. Without a teacher, the labels stay as they are."""
        settings, learned = self.settings, None
        if self.learns:
            teacher, learned = teacher
        fresh_keys, augment_keys, mixup_keys, cutmix_keys = jax.vmap(lambda key: jax.random.split(key, 4))(keys).T
        for rows, name in self._fresh_rows(len(x)):
            draws = jax.vmap(lambda key, name=name: STARTS[name].draw(key, 1, self.spec)[0])(fresh_keys[rows])
            x = x.at[rows].set(draws)
        x = augment(augment_keys, x, self.augment, self.spec)
        if settings.mixup:
            x = mixed(mixup_keys, x, settings.mixup, _weight)
        if settings.cutmix:
            x = mixed(cutmix_keys, x, settings.cutmix, _rectangle)
        count = round(settings.adversary * len(x))
        if learned is not None and count:
            own_keys = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys[:count])
            x = x.at[:count].set(adversary.draw(learned, own_keys, self.spec))
        return x, labels if teacher is None else from_logits(teacher(x))

    @property
    def learns(self) -> bool:
        """Whether there is an adversary."""
        return self.settings.adversary > 0

    def init(self, key: Array) -> adversary.AdversaryState:
        """The adversary before the first step."""
        return adversary.init(key, self.spec, self.settings.adversary_rate)

    def learn(self, keys: Array, state: adversary.AdversaryState, step: Array, student: Any, teacher: Any) -> Any:
        """The adversary after a step of the student."""

        def update(state: adversary.AdversaryState) -> adversary.AdversaryState:
            own_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
            return adversary.learn(state, own_keys, student, teacher, self.settings.adversary_rate)

        return lax.cond(step % self.settings.adversary_every == 0, update, lambda state: state, state)

    def _fresh_rows(self, count: int) -> list[tuple[slice, str]]:
        """The rows that are drawn from each start, for `count` examples on a device."""
        names, total = self.settings.fresh, round(self.settings.fresh_share * count)
        ends = [count - total + place * total // max(len(names), 1) for place in range(len(names) + 1)]
        return [(slice(*rows), name) for *rows, name in zip(ends, ends[1:], names, strict=False)]


def mixed(keys: Array, x: Array, share: float, draw_weight: Callable[[Array, tuple[int, ...]], Array]) -> Array:
    """Mixes a share of the inputs with another input of the batch: `w x + (1 - w) other`.

    Args:
      keys: The key of each input, `[B]`.
      x: Inputs, `[B, *shape]`.
      share: Probability with which an input is mixed.
      draw_weight: `(key, shape) -> w`, which broadcasts to `shape`.

    Returns:
      `[B, *shape]`.

    Source: mixup, Zhang et al. 2018 (arXiv 1710.09412); CutMix, Yun et al. 2019 (arXiv 1905.04899). Both mix the labels
      too. Here, the teacher labels the result.
    """

    def one(key: Array, own: Array) -> Array:
        share_key, other_key, weight_key = jax.random.split(key, 3)
        other = x[jax.random.randint(other_key, (), 0, len(x))]
        weight = draw_weight(weight_key, own.shape)
        return jnp.where(jax.random.bernoulli(share_key, share), weight * own + (1 - weight) * other, own)

    return jax.vmap(one)(keys, x)


def _weight(key: Array, shape: tuple[int, ...]) -> Array:
    """A uniform weight."""
    return jax.random.uniform(key)


def _rectangle(key: Array, shape: tuple[int, ...]) -> Array:
    """0 within a rectangle of uniform area and place, 1 around it, `[H, W, 1]`."""
    area_key, place_key = jax.random.split(key)
    sides = jnp.sqrt(jax.random.uniform(area_key)) * jnp.array(shape[:2])
    corner = jax.random.uniform(place_key, (2,)) * (jnp.array(shape[:2]) - sides)
    rows, columns = (
        (jnp.arange(size) + 0.5 >= corner[axis]) & (jnp.arange(size) + 0.5 < corner[axis] + sides[axis])
        for axis, size in enumerate(shape[:2])
    )
    return 1.0 - (rows[:, None] & columns)[..., None]
