"""CAKE with nothing but the teacher's outputs: its Jacobian is estimated from finite differences.

L is known and differentiable in the logits z, so its gradient with respect to x needs of the teacher only J = dz/dx.
Each sample carries z and J where the teacher was last asked, a linear model of the teacher around itself. A look asks
for z anew and for the slopes of z along q orthonormal directions u, and corrects J there and nowhere else,

    J <- J + sum_u (dz/du - J u) u^T,

so that what earlier looks found remains. Between two looks the samples take CAKE's own steps (arXiv 2306.02090,
Algorithm 1) with the model in the teacher's place, which ask for nothing. The correction is Broyden's (1965, equation
4.5) for several directions at once; SEGA (Hanzely, Mishchenko, Richtarik 2018, arXiv 1809.03054) does so with the
gradient, which here would age with every step, as dL/dz does.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import langevin, parallel, synthesis
from cake_jax.energy import energy, logit_gap
from cake_jax.evaluation import predict
from cake_jax.synthesis import SynthesisInfo
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Queryable, Teacher
from cake_jax.types import DataSpec, SampleBatch

DIRECTIONS = ("coordinate", "smooth")
# Inputs that the teacher is asked for at once, in bytes.
_ROWS_BYTES = 2**28
# Frequency, in half waves over the image, beyond which smooth directions become rare.
_CUTOFF = 4.0


@dataclasses.dataclass(frozen=True)
class ZerothOrderSettings(SynthesisSettings):
    """How samples are made from outputs alone. Hashable, like `SynthesisSettings`.

    Attributes:
      search: `gradient`; `boundary`, which needs labels alone; or `auto`, by what the teacher answers.
      budget: Queries of the whole synthesis, at most.
      num_looks: L, how often the teacher is asked anew as the T steps of a sample go by.
      num_directions: q, directions of a look.
      directions: One of `DIRECTIONS`.
      sigma: Length of the difference along a direction, L2 in normalised units.
      antithetic: Whether differences are taken to both sides, for twice the queries.
      trust: How far a sample may go from where the teacher was last asked: root mean square over its values, in
        normalised units.
      bisections: k, of the boundary search.
    """

    search: str = "auto"
    budget: int = 1_000_000
    num_looks: int = 1
    num_directions: int = 1
    directions: str = "coordinate"
    sigma: float = 0.1
    antithetic: bool = False
    trust: float = 0.5
    bisections: int = 3

    @property
    def queries_per_sample(self) -> int:
        """What the gradient search asks for: L looks, and the final logits."""
        return self.num_looks * (1 + (1 + self.antithetic) * self.num_directions) + 1


class ZerothOrderBatch(NamedTuple):
    """A mini-batch.

    Attributes:
      samples: On the host, set by set.
      info: Diagnostics.
      queries: Answers asked for.
    """

    samples: SampleBatch
    info: SynthesisInfo
    queries: int


class LinearModel(NamedTuple):
    """A teacher around N inputs: `z + J (x' - x)`.

    Attributes:
      x: `[N, *shape]`.
      logits: z at x, `[N, K]`.
      jacobian: J, `[N, K, D]` with D the size of one input.
    """

    x: Array
    logits: Array
    jacobian: Array

    def as_teacher(self, spec: DataSpec) -> Teacher:
        """The model in a teacher's place; its n-th input is one near the n-th `x`."""
        return Teacher(self, _linear_logits, spec)


def draw_directions(key: Array, count: int, shape: tuple[int, ...], kind: str) -> Array:
    """Orthonormal directions, drawn from an orthonormal basis without replacement.

    `coordinate`: from single values, evenly. `smooth`: from the discrete cosines of images, channel by channel, by
    weights `(1 + f^2 / 16)^-2` with `f^2` the sum of both squared frequencies in half waves: teachers of images answer
    to low ones most.

    Args:
      key: A key.
      count: q, at most the size D of an input; with q = D they are the whole basis.
      shape: Of one input.
      kind: One of `DIRECTIONS`.

    Returns:
      `[q, *shape]` float32.
    """
    log_weights = jnp.zeros(math.prod(shape))
    if kind == "smooth":
        height, width, channels = shape
        square = jnp.square(jnp.arange(height))[:, None] + jnp.square(jnp.arange(width))
        log_weights = jnp.repeat(-2.0 * jnp.log1p(square.ravel() / _CUTOFF**2), channels)
    # The largest of log weights with Gumbel noise are a draw without replacement.
    chosen = lax.top_k(log_weights + jax.random.gumbel(key, log_weights.shape), count)[1]
    units = jax.nn.one_hot(chosen, log_weights.size).reshape(count, *shape)
    return jax.scipy.fft.idctn(units, axes=(1, 2), norm="ortho") if kind == "smooth" else units


def correct(jacobian: Array, slopes: Array, directions: Array) -> Array:
    """The matrix nearest to `jacobian` that has the measured slopes.

    Args:
      jacobian: `[..., K, D]`.
      slopes: dz/du, `[..., q, K]`.
      directions: Orthonormal u, `[..., q, D]`.

    Returns:
      `[..., K, D]`, exact within the span of the directions, as `jacobian` was orthogonal to it.

    Source: Broyden 1965, *A class of methods for solving nonlinear simultaneous equations*, equation 4.5.
    """
    known = jnp.einsum("...kd,...qd->...qk", jacobian, directions)
    return jacobian + jnp.einsum("...qk,...qd->...kd", slopes - known, directions)


def look(key: Array, teacher: Queryable, x: Array, jacobian: Array, settings: ZerothOrderSettings) -> LinearModel:
    """Asks the teacher around x: `S G (1 + q)` queries, or `S G (1 + 2 q)` antithetic ones.

    Args:
      key: Keys, one a set, `[S]`; the samples of a set share their directions.
      teacher: What answers with logits or, as black boxes do, with the logarithm of scores.
      x: `[S, G, *shape]`.
      jacobian: What is known of J already, `[S G, K, D]`; zeros at first.
      settings: The settings.

    Returns:
      The linear model around x.
    """
    samples, count = x.reshape(-1, *teacher.spec.shape), settings.num_directions
    logits = predict(teacher, samples)
    directions = _draw_jit(key, count, teacher.spec.shape, settings.directions)
    sides = 1 + settings.antithetic
    step = max(1, _ROWS_BYTES // (sides * 4 * x.size))
    for part in (directions[:, i : i + step] for i in range(0, count, step)):
        rows = np.asarray(_rows(x, part, settings.sigma, settings.antithetic)).reshape(-1, *teacher.spec.shape)
        answers = predict(teacher, rows).reshape(sides, len(samples), -1, logits.shape[-1])
        jacobian = _correct_sets(jacobian, logits, answers, part, settings.sigma)
    return LinearModel(samples, jnp.asarray(logits), jacobian)


def minibatch(key: Array, teacher: Queryable, settings: ZerothOrderSettings, batch: int) -> ZerothOrderBatch:
    """Synthesizes mini-batch number `batch` with `batch_size * queries_per_sample` queries.

    Starts, targets and Langevin noise are those of `synthesis.minibatch`; with all directions and as many looks as
    steps so are the samples, but for the differences' error.

    Args:
      key: The key of the whole synthesis.
      teacher: What answers with logits or, as black boxes do, with the logarithm of scores.
      settings: Settings that fit the teacher's domain.
      batch: m, from 0 to M - 1.

    Raises:
      CakeError: A sample or its logits are not finite, or what a black box raises.
    """
    spec, num_steps, looks = teacher.spec, settings.num_steps, settings.num_looks
    sets = batch * settings.num_sets + np.arange(settings.num_sets)
    x, target, noise_keys = synthesis.draw_jit(key, sets, settings, spec)
    eta = np.float32(synthesis.step_size(settings, batch))
    states = jax.vmap(lambda x: langevin.init(x, langevin.OPTIMIZERS[settings.optimizer]()))(
        x.reshape(*target.shape, -1)
    )
    jacobian, gap_start = jnp.zeros((settings.batch_size, spec.num_classes, math.prod(spec.shape))), None
    for number in range(looks):
        # Steps fold 0 to T - 1 into the noise's keys.
        keys = jax.vmap(functools.partial(jax.random.fold_in, data=num_steps + number))(noise_keys)
        model = look(keys, teacher, states.x.reshape(x.shape), jacobian, settings)
        if gap_start is None:
            gap_start = np.asarray(logit_gap(model.logits.reshape(*target.shape, -1)))
        jacobian = model.jacobian
        steps = num_steps * (number + 1) // looks - num_steps * number // looks
        states = _descend(noise_keys, states, model.as_teacher(spec), target, eta, steps, settings)
    x = np.asarray(states.x).reshape(-1, *spec.shape)
    samples = synthesis.labelled(x, predict(teacher, x), np.asarray(target).reshape(-1), settings, batch)
    info = synthesis.diagnose(samples, settings, gap_start)
    return ZerothOrderBatch(samples, info, settings.batch_size * settings.queries_per_sample)


@functools.partial(jax.jit, static_argnames="settings")
def _descend(
    noise_keys: Array,
    states: langevin.LangevinState,
    model: Teacher,
    target: Array,
    eta: Array,
    num_steps: int,
    settings: ZerothOrderSettings,
) -> langevin.LangevinState:
    """So many steps of all sets with the model in the teacher's place, none beyond the region of trust."""
    sets, groups, size = states.x.shape
    start, radius = states.x, settings.trust * math.sqrt(size)
    step = functools.partial(
        langevin.step,
        step_size=eta,
        temperature=settings.langevin_temperature,
        optimizer=langevin.OPTIMIZERS[settings.optimizer](),
    )

    def energy_of(flat: Array) -> Array:
        x = flat.reshape(sets, groups, *model.spec.shape)
        return energy(x, model, target, jnp.ones(sets, bool), settings)[0]

    # Terms that couple sets reduce over the axis of devices, here of one.
    gradient = jax.vmap(jax.grad(energy_of), axis_name=parallel.AXIS)

    def update(number: Array, states: langevin.LangevinState) -> langevin.LangevinState:
        states, _ = jax.vmap(step)(noise_keys, states, gradient(states.x[None])[0])
        moved = states.x - start
        length = jnp.linalg.norm(moved, axis=-1, keepdims=True)
        return states._replace(x=jnp.where(length > radius, start + moved * (radius / length), states.x))

    return lax.fori_loop(0, num_steps, update, states)


def _linear_logits(model: LinearModel, x: Array) -> Array:
    return model.logits + jnp.einsum("nkd,nd->nk", model.jacobian, (x - model.x).reshape(len(x), -1))


@functools.partial(jax.jit, static_argnames=("count", "shape", "kind"))
def _draw_jit(keys: Array, count: int, shape: tuple[int, ...], kind: str) -> Array:
    """Directions of S sets, `[S, q, *shape]`."""
    return jax.vmap(lambda key: draw_directions(key, count, shape, kind))(keys)


@functools.partial(jax.jit, static_argnames="antithetic")
def _rows(x: Array, directions: Array, sigma: float, antithetic: bool) -> Array:
    """What is asked: `x + sigma u`, antithetic also `x - sigma u`, `[1 or 2, S, G, q, *shape]`."""
    offset = sigma * directions[:, None]
    return jnp.stack([x[:, :, None] + sign * offset for sign in ((1, -1) if antithetic else (1,))])


@jax.jit
def _correct_sets(jacobian: Array, logits: Array, answers: Array, directions: Array, sigma: float) -> Array:
    """`correct` with the teacher's answers to `_rows`, `[1 or 2, S G, q, K]`."""
    behind, width = (answers[1], 2 * sigma) if len(answers) == 2 else (logits[:, None], sigma)
    sets = len(directions)
    slopes = ((answers[0] - behind) / width).reshape(sets, -1, *answers.shape[2:])
    jacobians = jacobian.reshape(sets, -1, *jacobian.shape[1:])
    directions = directions.reshape(sets, 1, directions.shape[1], -1)
    return correct(jacobians, slopes, directions).reshape(jacobian.shape)
