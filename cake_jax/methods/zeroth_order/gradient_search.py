"""CAKE on a linear model of the teacher. Finite differences of the teacher's answers correct the model.

L is a known, differentiable function of the logits f. So the gradient of L with respect to x needs only the teacher's
Jacobian J = df/dx. Each sample has a linear model of the teacher: f and J at the point of the last look. A look queries
f, and estimates the slopes of f along q orthonormal directions u. It corrects J along these directions alone:

    J <- J + sum_u (df/du - J u) u^T

So J keeps the slopes that earlier looks found. Between two looks, the samples take CAKE's own steps (arXiv 2306.02090,
Algorithm 1) on the linear model. These steps cost no query. The correction is that of Broyden (1965, equation 4.5), for
several directions at once. SEGA (Hanzely, Mishchenko, Richtarik 2018, arXiv 1809.03054) corrects the gradient in this
way. Here a stored gradient would be outdated after each step, because dL/df changes.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import parallel
from cake_jax.methods.zeroth_order.settings import ZerothOrderSettings
from cake_jax.synthesis import SynthesisInfo, diagnose, labelled, langevin
from cake_jax.synthesis.diagnostics import logit_gap
from cake_jax.synthesis.draw_starts import batch_sets, draw_jit
from cake_jax.synthesis.objective import objective
from cake_jax.teachers import Teacher
from cake_jax.types import DataSpec, Queryable, SampleBatch

# Bytes of the inputs in one call of the teacher.
_ROWS_BYTES = 2**28
# Frequency above which smooth directions become rare, in half waves over the image.
_CUTOFF = 4.0


class LinearModel(NamedTuple):
    """A linear model of the teacher around each of N inputs: `f(x) + J (x' - x)`.

    Attributes:
      x: The inputs, `[N, *shape]`.
      logits: The logits f(x), `[N, K]`.
      jacobian: J at x, `[N, K, D]`. D is the number of values in one input.
    """

    x: Array
    logits: Array
    jacobian: Array

    def as_teacher(self, spec: DataSpec) -> Teacher:
        """The model as a teacher for exactly N inputs. The model around the n-th `x` answers the n-th input."""
        return Teacher(self, _linear_logits, spec)


def draw_directions(key: Array, count: int, shape: tuple[int, ...], kind: str) -> Array:
    """Draws orthonormal directions from an orthonormal basis, without replacement.

    With `coordinate`, each basis vector changes one value of the input, and all are equally likely. With `smooth`, each
    basis vector is a two-dimensional cosine in one channel. Its weight in the draw is `(1 + (a^2 + b^2) / 16)^-2`, for
    a and b half waves over height and width. Weights fall with the frequency, as do the reactions of image teachers.

    Args:
      key: A JAX random key.
      count: q, the number of directions. It is at most D, the number of values in an input.
      shape: Shape of one input.
      kind: One of `settings.DIRECTIONS`.

    Returns:
      The directions, `[q, *shape]` float32. With q = D they are the whole basis.
    """
    log_weights = jnp.zeros(math.prod(shape))
    if kind == "smooth":
        height, width, channels = shape
        square = jnp.square(jnp.arange(height))[:, None] + jnp.square(jnp.arange(width))
        log_weights = jnp.repeat(-2.0 * jnp.log1p(square.ravel() / _CUTOFF**2), channels)
    # The largest sums of log weight and Gumbel noise are a draw without replacement.
    chosen = lax.top_k(log_weights + jax.random.gumbel(key, log_weights.shape), count)[1]
    units = jax.nn.one_hot(chosen, log_weights.size).reshape(count, *shape)
    return jax.scipy.fft.idctn(units, axes=(1, 2), norm="ortho") if kind == "smooth" else units


def correct(jacobian: Array, slopes: Array, directions: Array) -> Array:
    """Returns the matrix nearest to `jacobian` that has the measured slopes.

    Args:
      jacobian: J, `[..., K, D]`.
      slopes: The measured slopes df/du, `[..., q, K]`.
      directions: Orthonormal directions u, `[..., q, D]`.

    Returns:
      The corrected J, `[..., K, D]`. It equals `jacobian` orthogonally to the directions.

    Source: Broyden 1965, *A class of methods for solving nonlinear simultaneous equations*, equation 4.5.
    """
    known = jnp.einsum("...kd,...qd->...qk", jacobian, directions)
    return jacobian + jnp.einsum("...qk,...qd->...kd", slopes - known, directions)


def look(key: Array, teacher: Queryable, x: Array, jacobian: Array, settings: ZerothOrderSettings) -> LinearModel:
    """Looks at the teacher around x. This costs `S G (1 + q)` queries, or `S G (1 + 2 q)` if antithetic.

    Args:
      key: A key for each set, `[S]`. The samples of a set share their directions.
      teacher: A teacher that gives at least scores.
      x: Sets, `[S, G, *shape]`.
      jacobian: J after the previous look, `[S G, K, D]`. Zeros for the first look.
      settings: Settings that `prepare` returns.

    Returns:
      The linear model around x.
    """
    samples, count = x.reshape(-1, *teacher.spec.shape), settings.num_directions
    logits = teacher.predict(samples)
    directions = _draw_jit(key, count, teacher.spec.shape, settings.directions)
    sides = 1 + settings.antithetic
    step = max(1, _ROWS_BYTES // (sides * 4 * x.size))
    for part in (directions[:, i : i + step] for i in range(0, count, step)):
        rows = np.asarray(_rows(x, part, settings.sigma, settings.antithetic)).reshape(-1, *teacher.spec.shape)
        answers = teacher.predict(rows).reshape(sides, len(samples), -1, logits.shape[-1])
        jacobian = _correct_sets(jacobian, logits, answers, part, settings.sigma)
    return LinearModel(samples, jnp.asarray(logits), jacobian)


def minibatch(
    key: Array, teacher: Queryable, settings: ZerothOrderSettings, batch: int
) -> tuple[SampleBatch, SynthesisInfo]:
    """Synthesizes mini-batch number `batch` with `batch_size * queries_per_sample` queries.

    Start samples, target classes and Langevin noise are those of `synthesis.minibatch`. With all D directions and one
    look for each step, the final samples are the same too, up to the error of the finite differences.

    Args:
      key: The key of the whole synthesis.
      teacher: A teacher that gives at least scores.
      settings: Settings that `prepare` returns.
      batch: m, the number of the mini-batch, from 0 to M - 1.

    Returns:
      The samples on the host, set by set, and diagnostics.

    Raises:
      CakeError: A sample or its logits are not finite, or the black box fails.
    """
    spec, num_steps, looks = teacher.spec, settings.num_steps, settings.num_looks
    x, target, noise_keys = draw_jit(key, batch_sets(settings, batch), settings, spec)
    eta = np.float32(settings.step_size_of(batch))
    states = jax.vmap(lambda x: langevin.init(x, langevin.OPTIMIZERS[settings.optimizer]()))(
        x.reshape(*target.shape, -1)
    )
    jacobian, gap_start = jnp.zeros((settings.batch_size, spec.num_classes, math.prod(spec.shape))), None
    for number in range(looks):
        # The Langevin steps fold the numbers 0 to T - 1 into the same keys.
        keys = jax.vmap(functools.partial(jax.random.fold_in, data=num_steps + number))(noise_keys)
        model = look(keys, teacher, states.x.reshape(x.shape), jacobian, settings)
        if gap_start is None:
            gap_start = np.asarray(logit_gap(model.logits.reshape(*target.shape, -1)))
        jacobian = model.jacobian
        steps = num_steps * (number + 1) // looks - num_steps * number // looks
        states = _descend(noise_keys, states, model.as_teacher(spec), target, eta, steps, settings)
    x = np.asarray(states.x).reshape(-1, *spec.shape)
    samples = labelled(x, teacher.predict(x), np.asarray(target).reshape(-1), settings, batch)
    return samples, diagnose(samples, settings, gap_start)


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
    """Takes `num_steps` steps with all sets on the linear model. No sample moves farther than `settings.trust`."""
    sets, groups, size = states.x.shape
    start, radius = states.x, settings.trust * math.sqrt(size)
    step = functools.partial(
        langevin.step,
        step_size=eta,
        temperature=settings.langevin_temperature,
        optimizer=langevin.OPTIMIZERS[settings.optimizer](),
    )

    def loss(flat: Array) -> Array:
        x = flat.reshape(sets, groups, *model.spec.shape)
        return objective(x, model, target, jnp.ones(sets, bool), settings)[0]

    # Loss terms that couple the sets reduce over the device axis. Here this axis has length 1.
    gradient = jax.vmap(jax.grad(loss), axis_name=parallel.AXIS)

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
    """The directions of S sets, `[S, q, *shape]`."""
    return jax.vmap(lambda key: draw_directions(key, count, shape, kind))(keys)


@functools.partial(jax.jit, static_argnames="antithetic")
def _rows(x: Array, directions: Array, sigma: float, antithetic: bool) -> Array:
    """The queries `[1 or 2, S, G, q, *shape]` of a look: `x + sigma u`, and also `x - sigma u` if antithetic."""
    offset = sigma * directions[:, None]
    return jnp.stack([x[:, :, None] + sign * offset for sign in ((1, -1) if antithetic else (1,))])


@jax.jit
def _correct_sets(jacobian: Array, logits: Array, answers: Array, directions: Array, sigma: float) -> Array:
    """Corrects J with the teacher's answers to `_rows`. The answers are `[1 or 2, S G, q, K]`."""
    behind, width = (answers[1], 2 * sigma) if len(answers) == 2 else (logits[:, None], sigma)
    sets = len(directions)
    slopes = ((answers[0] - behind) / width).reshape(sets, -1, *answers.shape[2:])
    jacobians = jacobian.reshape(sets, -1, *jacobian.shape[1:])
    directions = directions.reshape(sets, 1, directions.shape[1], -1)
    return correct(jacobians, slopes, directions).reshape(jacobian.shape)
