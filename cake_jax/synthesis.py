"""Synthesis: from a teacher alone to labelled samples.

A mini-batch holds S sets of G samples with G different target classes. All its samples take T steps down

    L = w_cls L_cls + w_contr L_contr + w_tv L_tv + w_ent L_ent

(CAKE, arXiv 2306.02090, Algorithm 1). Sets are dealt out to the devices; on each device they are run in chunks of
`sets_per_chunk`, each chunk for all T steps, so that a chunk stays in a CPU's cache. Terms that couple the sets of a
mini-batch make the chunk the whole share of the device. A set draws from its own key, so its samples depend neither on
the number of devices nor on which mini-batches ran before.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import langevin, losses, parallel, priors, schedules
from cake_jax.energy import energy, logit_gap, set_logits
from cake_jax.synthesis_settings import PRECISIONS, SynthesisSettings, check
from cake_jax.teachers import Teacher, as_teacher
from cake_jax.types import CakeError, DataSpec, SampleBatch, concatenate


class SynthesisInfo(NamedTuple):
    """Diagnostics of a mini-batch, scalars on the host.

    Attributes:
      step_size: eta(m).
      cls: L_cls at the last step (of the start samples where T = 0), unweighted like the next three.
      contr: L_contr.
      tv: The data prior; 0 where its weight is 0.
      entropy: L_ent.
      target_accuracy: Share of the samples that the teacher puts in their target class.
      logit_gap_start: Median over the sets of the root mean squared distance between the logits of two samples of the
        set, at the start.
      logit_gap: The same of the final samples.
    """

    step_size: float
    cls: float
    contr: float
    tv: float
    entropy: float
    target_accuracy: float
    logit_gap_start: float
    logit_gap: float


def minibatch(
    key: Array, teacher: Teacher, settings: SynthesisSettings, batch: int
) -> tuple[SampleBatch, SynthesisInfo]:
    """Synthesizes mini-batch number `batch`, spread over the devices.

    Args:
      key: The key of the whole synthesis; set s of the mini-batch draws from `fold_in(key, batch * S + s)`.
      teacher: The teacher.
      settings: Settings that `check` accepts.
      batch: m, from 0 to M - 1.

    Returns:
      `batch_size` samples on the host, set by set, and diagnostics.

    Raises:
      CakeError: A sample or its logits are not finite.
    """
    first_set = batch * settings.num_sets
    sets, mask = parallel.deal(settings.num_sets, sets_per_chunk(teacher, settings))
    eta = np.float32(step_size(settings, batch))
    result = _device_function(settings)(key, teacher, first_set + sets, mask, eta)
    result = parallel.gather(result, settings.num_sets)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(settings.batch_size, *array.shape[2:])

    samples = labelled(flat(result.x), flat(result.logits), flat(result.target), settings, batch)
    return samples, diagnose(samples, settings, result.gap_start)


def step_size(settings: SynthesisSettings, batch: int) -> float:
    """eta(m) of mini-batch m = `batch`."""
    return schedules.step_size(
        batch,
        settings.num_batches,
        base=settings.step_size,
        decay_magnitude=settings.decay_magnitude,
        schedule=settings.schedule,
    )


def starts(key: Array, settings: SynthesisSettings, spec: DataSpec, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """What mini-batch `batch` starts from, on the host: x `[N, *shape]` and target classes `[N]`, set by set."""
    sets = batch * settings.num_sets + np.arange(settings.num_sets)
    x, target, _ = draw_jit(key, sets, settings, spec)
    return np.asarray(x).reshape(-1, *spec.shape), np.asarray(target).reshape(-1)


def labelled(
    x: np.ndarray, logits: np.ndarray, target: np.ndarray, settings: SynthesisSettings, batch: int
) -> SampleBatch:
    """Samples of mini-batch `batch`, set by set, with the teacher's logits.

    Args:
      x: `[N, *shape]`.
      logits: `[N, K]`.
      target: `[N]` int.
      settings: The settings.
      batch: m.

    Raises:
      CakeError: A sample or its logits are not finite.
    """
    eta, first_set = step_size(settings, batch), batch * settings.num_sets
    if not (np.isfinite(x).all() and np.isfinite(logits).all()):
        raise CakeError(
            f"synthesis: mini-batch {batch} is not finite (NaN) at step size {eta:.3g}; "
            "lower synthesis.step_size or synthesis.weights"
        )
    sets = np.arange(first_set, first_set + settings.num_sets, dtype=np.int32)
    step_sizes = np.full(settings.batch_size, eta, np.float32)
    return SampleBatch(x, logits, target, step_sizes, np.repeat(sets, settings.num_groups))


def stream(
    key: Array, teacher: Teacher, settings: SynthesisSettings, *, first_batch: int = 0
) -> Iterator[tuple[SampleBatch, SynthesisInfo]]:
    """Mini-batches from `first_batch` to the last, one at a time; memory does not grow with their number."""
    for batch in range(first_batch, settings.num_batches):
        yield minibatch(key, teacher, settings, batch)


def synthesize(
    key: Array,
    teacher: Teacher | Callable[[Array], Array],
    spec: DataSpec,
    settings: SynthesisSettings = SynthesisSettings(),
) -> SampleBatch:
    """Makes a labelled synthetic data set from a teacher alone.

    Args:
      key: A `jax.random.key`.
      teacher: A `Teacher`, or any differentiable function of normalised x `[B, *spec.shape]` to logits `[B, K]`.
      spec: The input domain.
      settings: How the samples are made.

    Returns:
      `num_batches * batch_size` samples in host memory. `stream` gives them one mini-batch at a time.

    Raises:
      CakeError: Settings or teacher do not fit `spec`, or a loss became NaN.
    """
    check(settings, spec)
    return concatenate([samples for samples, _ in stream(key, as_teacher(teacher, spec), settings)])


class _SetResult(NamedTuple):
    """What one set leaves on the device: x `[G, *shape]`, logits `[G, K]`, target `[G]`, gap_start scalar."""

    x: Array
    logits: Array
    target: Array
    gap_start: Array


# Work of a chunk's forward pass on a CPU: enough to hide what starting kernels costs, little enough for its cache.
_CHUNK_FLOPS = 1.5e8
# Chunks of a mini-batch come in multiples of this, or of the devices if those are more, so that all have some to do and
# the samples are the same on 1, 2 and 4.
_CHUNK_MULTIPLE = 4


def sets_per_chunk(teacher: Teacher, settings: SynthesisSettings) -> int:
    """c, sets of a chunk: `settings.sets_per_chunk`, or what suits the teacher's cost, the terms and the backend."""
    devices = parallel.device_count()
    share = -(-settings.num_sets // devices)
    if settings.couples_sets:
        return share
    if settings.sets_per_chunk:
        return settings.sets_per_chunk
    if jax.default_backend() != "cpu":
        return share
    leaves, structure = jax.tree.flatten(teacher)
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    limit = max(_CHUNK_FLOPS / _set_flops(structure, shapes, settings.num_groups), 1.0)
    chunks = math.ceil(settings.num_sets / limit)
    multiple = max(_CHUNK_MULTIPLE, devices)
    chunks = -(-chunks // multiple) * multiple
    return -(-settings.num_sets // chunks)


@functools.lru_cache(maxsize=16)
def _set_flops(structure: jax.tree_util.PyTreeDef, shapes: tuple[jax.ShapeDtypeStruct, ...], num_groups: int) -> float:
    """Floating-point operations of a teacher's answer to one set, at least 1, as XLA counts them before compiling."""
    teacher = jax.tree.unflatten(structure, shapes)
    x = jax.ShapeDtypeStruct((num_groups, *teacher.spec.shape), jnp.float32)
    analysis: Any = jax.jit(lambda teacher, x: teacher(x)).lower(teacher, x).cost_analysis()
    return max((analysis or {}).get("flops", 0.0), 1.0)


@functools.cache
def _device_function(settings: SynthesisSettings) -> Callable:
    """One program for all mini-batches: `(key, teacher, sets [D, n, c], mask, eta) -> _SetResult [D, n, c, ...]`."""

    def device(key: Array, teacher: Teacher, sets: Array, mask: Array, eta: Array) -> _SetResult:
        if settings.precision != "float32":
            teacher = jax.tree.map(lambda leaf: _cast(leaf, PRECISIONS[settings.precision]), teacher)
        return lax.map(lambda chunk: _diffuse(key, teacher, chunk[0], chunk[1], eta, settings), (sets, mask))

    return parallel.map_devices(device, in_axes=(None, None, 0, 0, None))


def _diffuse(
    key: Array, teacher: Teacher, sets: Array, mask: Array, eta: Array, settings: SynthesisSettings
) -> _SetResult:
    """All T steps of a chunk of c sets, given by their global numbers `[c]`."""
    x, target, noise_keys = draw(key, sets, settings, teacher.spec)
    optimizer = langevin.OPTIMIZERS[settings.optimizer]()
    step = functools.partial(
        langevin.step, step_size=eta, temperature=settings.langevin_temperature, optimizer=optimizer
    )

    def energy_of(flat: Array) -> tuple[Array, Array]:
        return energy(flat.reshape(x.shape), teacher, target, mask, settings)

    # Samples step as vectors: a loop over whole images runs faster on a CPU than one over their rows and channels.
    def update(states: langevin.LangevinState, step_number: None) -> tuple[langevin.LangevinState, Array]:
        gradient, logits = jax.grad(energy_of, has_aux=True)(states.x)
        next_states, _ = jax.vmap(step)(noise_keys, states, gradient)
        return next_states, logit_gap(logits)

    states = jax.vmap(functools.partial(langevin.init, optimizer=optimizer))(x.reshape(*x.shape[:2], -1))
    states, gaps = lax.scan(update, states, None, length=settings.num_steps)
    x = states.x.reshape(x.shape)
    logits = set_logits(teacher, x)
    gap_start = gaps[0] if settings.num_steps else logit_gap(logits)
    return _SetResult(x, logits, target, gap_start)


def draw(key: Array, sets: Array, settings: SynthesisSettings, spec: DataSpec) -> tuple[Array, Array, Array]:
    """What c sets start from, given by their global numbers `[c]`: each from its own key.

    Returns:
      x `[c, G, *shape]`, target classes `[c, G]`, and a key of each set's Langevin noise `[c]`.
    """
    set_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(sets)
    start_keys, target_keys, noise_keys = jax.vmap(functools.partial(jax.random.split, num=3))(set_keys).T
    target = jax.vmap(lambda k: settings.targets(k, spec.num_classes, settings.num_groups))(target_keys)
    start = priors.STARTS[settings.start] if isinstance(settings.start, str) else settings.start
    x = jax.vmap(lambda k: start(k, settings.num_groups, spec))(start_keys)
    return x, target, noise_keys


draw_jit = jax.jit(draw, static_argnames=("settings", "spec"))


def _cast(leaf: Array, dtype: jnp.dtype) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def diagnose(samples: SampleBatch, settings: SynthesisSettings, gap_start: np.ndarray | None = None) -> SynthesisInfo:
    """Diagnostics of a mini-batch, from the logits that its samples are stored with.

    Args:
      samples: The mini-batch, set by set.
      settings: The settings.
      gap_start: Logit gaps of the sets at the start `[S]`; those at the end by default.
    """
    values = _diagnostics(samples.x, samples.logits, samples.target, gap_start, settings)
    return SynthesisInfo(float(samples.step_size[0]), **{name: float(value) for name, value in values.items()})


@functools.partial(jax.jit, static_argnames="settings")
def _diagnostics(
    x: Array, logits: Array, target: Array, gap_start: Array | None, settings: SynthesisSettings
) -> dict[str, Array | float]:
    sets = logits.reshape(settings.num_sets, settings.num_groups, -1)
    gap = logit_gap(sets)
    return {
        "cls": losses.classification(sets, target.reshape(sets.shape[:2])).mean(),
        "contr": losses.contrastive_mse(sets).mean(),
        "tv": settings.prior(x).mean() if settings.weights.tv else 0.0,
        "entropy": losses.negative_entropy(jax.nn.softmax(logits).mean(axis=0)),
        "target_accuracy": (logits.argmax(-1) == target).mean(),
        "logit_gap_start": jnp.median(gap if gap_start is None else gap_start),
        "logit_gap": jnp.median(gap),
    }
