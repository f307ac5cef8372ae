"""Synthesis of one mini-batch of samples from a white-box teacher.

A mini-batch holds S sets of G samples with G different target classes. All samples take T steps down

    L = w_cls L_cls + w_contr L_contr + w_tv L_tv + w_ent L_ent

(CAKE, arXiv 2306.02090, Algorithm 1). The sets are divided among the devices, and on each device into chunks. A chunk
takes all T steps before the next chunk begins, so that it stays in a CPU's cache. If a loss term couples the sets, all
sets of a device are one chunk. Each set has its own key. So its samples depend neither on the number of devices nor on
earlier mini-batches.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import parallel
from cake_jax.precision import cast
from cake_jax.synthesis import langevin
from cake_jax.synthesis.chunks import sets_per_chunk
from cake_jax.synthesis.diagnostics import SynthesisInfo, diagnose, logit_gap
from cake_jax.synthesis.draw_starts import batch_sets, draw_candidates
from cake_jax.synthesis.objective import Objective, objective as cake_objective, set_logits
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, SampleBatch


def minibatch(
    key: Array, teacher: Teacher, settings: SynthesisSettings, batch: int, *, objective: Objective = cake_objective
) -> tuple[SampleBatch, SynthesisInfo]:
    """Synthesizes mini-batch number `batch` on all devices.

    Args:
      key: The key of the whole synthesis. Set s of the mini-batch has the key `fold_in(key, batch * S + s)`.
      teacher: The teacher.
      settings: Settings that `settings.checked` accepts.
      batch: m, the number of the mini-batch, from 0 to M - 1.
      objective: The loss that the samples descend. Pass a module-level function: each new function compiles a program.

    Returns:
      `batch_size` samples on the host, set by set, and diagnostics.

    Raises:
      CakeError: A sample or its logits are not finite.
    """
    first_set = batch * settings.num_sets
    sets, mask = parallel.deal(settings.num_sets, sets_per_chunk(teacher, settings))
    eta = np.float32(settings.step_size_of(batch))
    result = _device_function(settings, objective)(key, teacher, first_set + sets, mask, eta)
    result = parallel.gather(result, settings.num_sets)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(settings.batch_size, *array.shape[2:])

    samples = labelled(flat(result.x), flat(result.logits), flat(result.target), settings, batch)
    return samples, diagnose(samples, settings, result.gap_start)


def labelled(
    x: np.ndarray, logits: np.ndarray, target: np.ndarray, settings: SynthesisSettings, batch: int
) -> SampleBatch:
    """The samples of mini-batch `batch`, with the teacher's logits.

    Args:
      x: Inputs, `[N, *shape]`, set by set.
      logits: The teacher's logits of x, `[N, K]`.
      target: Target classes, `[N]` int.
      settings: The settings.
      batch: m, the number of the mini-batch.

    Raises:
      CakeError: A sample or its logits are not finite.
    """
    eta = settings.step_size_of(batch)
    if not (np.isfinite(x).all() and np.isfinite(logits).all()):
        raise CakeError(
            f"synthesis: mini-batch {batch} is not finite (NaN) at step size {eta:.3g}; "
            "lower synthesis.step_size or synthesis.weights, or divide large logits: teacher.temperature in a config, "
            "teachers.with_temperature in Python"
        )
    sets = batch_sets(settings, batch).astype(np.int32)
    step_sizes = np.full(settings.batch_size, eta, np.float32)
    return SampleBatch(x, logits, target, step_sizes, np.repeat(sets, settings.num_groups))


class _SetResult(NamedTuple):
    """The results of one set on the device: x `[G, *shape]`, logits `[G, K]`, target `[G]`, gap_start scalar."""

    x: Array
    logits: Array
    target: Array
    gap_start: Array


@functools.cache
def _device_function(settings: SynthesisSettings, objective: Objective) -> Callable:
    """One program for all mini-batches: `(key, teacher, sets [D, n, c], mask, eta) -> _SetResult [D, n, c, ...]`."""

    def device(key: Array, teacher: Teacher, sets: Array, mask: Array, eta: Array) -> _SetResult:
        if settings.precision != "float32":
            teacher = cast(teacher, settings.precision)
        return lax.map(lambda chunk: _diffuse(key, teacher, chunk[0], chunk[1], eta, settings, objective), (sets, mask))

    return parallel.map_devices(device, in_axes=(None, None, 0, 0, None))


def _diffuse(
    key: Array,
    teacher: Teacher,
    sets: Array,
    mask: Array,
    eta: Array,
    settings: SynthesisSettings,
    objective: Objective,
) -> _SetResult:
    """Takes all T steps of a chunk. `sets` are the numbers of its c sets in the whole synthesis, `[c]`."""
    x, target, noise_keys = draw_candidates(key, sets, settings, teacher)
    optimizer = langevin.OPTIMIZERS[settings.optimizer]()
    step = functools.partial(
        langevin.step, step_size=eta, temperature=settings.langevin_temperature, optimizer=optimizer
    )

    move_keys = jax.vmap(lambda key: jax.random.split(key)[1])(noise_keys)
    bounds = [jnp.broadcast_to(bound, teacher.spec.shape).ravel() for bound in teacher.spec.bounds]

    def loss_and_logits(flat: Array, steps: Array) -> tuple[Array, Array]:
        moved = jax.vmap(settings.moved)(jax.vmap(jax.random.fold_in)(move_keys, steps), flat.reshape(x.shape))
        return objective(moved, teacher, target, mask, settings)

    # Samples are flat vectors here. On a CPU, one loop over an image is faster than loops over its rows and channels.
    def update(states: langevin.LangevinState, step_number: None) -> tuple[langevin.LangevinState, Array]:
        gradient, logits = jax.grad(loss_and_logits, has_aux=True)(states.x, states.step)
        next_states, _ = jax.vmap(step)(noise_keys, states, gradient)
        if settings.clip:
            next_states = next_states._replace(x=jnp.clip(next_states.x, *bounds))
        return next_states, logit_gap(logits)

    states = jax.vmap(functools.partial(langevin.init, optimizer=optimizer))(x.reshape(*x.shape[:2], -1))
    states, gaps = lax.scan(update, states, None, length=settings.num_steps)
    x = states.x.reshape(x.shape)
    logits = set_logits(teacher, x)
    gap_start = gaps[0] if settings.num_steps else logit_gap(logits)
    return _SetResult(x, logits, target, gap_start)
