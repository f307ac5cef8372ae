"""Synthesis: from a teacher alone to labelled samples.

A mini-batch holds S sets of G samples with G different target classes. All its samples take T steps down

    L = w_cls L_cls + w_contr L_contr + w_tv L_tv + w_ent L_ent

(CAKE, arXiv 2306.02090, Algorithm 1). Sets are dealt out to the devices; on each device they are run in chunks of
`sets_per_chunk`, each chunk for all T steps, so that a chunk stays in a CPU's cache. Terms that couple the sets of a
mini-batch make the chunk the whole share of the device. A set draws from its own key, so its samples depend neither on
the number of devices nor on which mini-batches ran before.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cake_jax import langevin, losses, parallel, schedules
from cake_jax.teachers import Teacher, as_teacher
from cake_jax.types import CakeError, DataSpec, SampleBatch, concatenate

PRECISIONS = {"float32": jnp.float32, "bf16": jnp.bfloat16}
CONTRASTIVE = ("mse", "snn")
Start = Callable[[Array, tuple[int, ...]], Array]


def normal_start(key: Array, shape: tuple[int, ...]) -> Array:
    """The default p(x): independent standard normal values of the given shape."""
    return jax.random.normal(key, shape)


def smooth_start(key: Array, shape: tuple[int, ...]) -> Array:
    """Images of Gaussian noise at four scales, coarse ones a little stronger, as natural images have it.

    A data prior in the choice of p(x) rather than in the loss: teachers of images answer such inputs with far more
    varied logits than independent pixels.

    Args:
      key: A key.
      shape: `(G, H, W, C)`.

    Returns:
      `[G, H, W, C]` float32, mean 0, variance about 1.
    """
    groups, height, width, channels = shape
    x = jnp.zeros(shape)
    for octave, octave_key in enumerate(jax.random.split(key, 4)):
        coarse = (groups, -(-height // 2**octave), -(-width // 2**octave), channels)
        noise = jax.random.normal(octave_key, coarse)
        x += 0.5 * 2 ** (octave / 4) * jax.image.resize(noise, shape, "cubic")
    return x


STARTS: dict[str, Start] = {"normal": normal_start, "smooth": smooth_start}


def distinct_targets(key: Array, num_classes: int, num_groups: int) -> Array:
    """The default p(y): `num_groups` different classes in random order, `[G]` int32."""
    return jax.random.permutation(key, num_classes)[:num_groups].astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the loss terms.

    Attributes:
      cls: Cross entropy to the target class.
      contr: Contrastive pull within a set.
      tv: The data prior, total variation by default.
      entropy: Evenness of the classes over a mini-batch; couples its sets.
    """

    cls: float = 1.0
    contr: float = 1.0
    tv: float = 0.0
    entropy: float = 0.0


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """How samples are made. Hashable: one compiled program serves all equal settings.

    Attributes:
      num_batches: M, mini-batches.
      batch_size: N, samples a mini-batch.
      num_groups: G, samples a set, each of another target class.
      num_steps: T; 0 leaves the start samples as they are.
      step_size: eta of the first mini-batch.
      schedule: Of the step size over the mini-batches, one of `schedules.SYNTHESIS_SCHEDULES`.
      decay_magnitude: Decades that the step size falls.
      optimizer: `sgd` or `adam`.
      langevin_temperature: 0 is CAKE, 1 is LAKE.
      precision: Of the teacher's arithmetic, `float32` or `bf16`; samples and losses are float32 always.
      contrastive: `mse`, `snn`, or a function of one set's logits `[G, K]` that returns a scalar.
      snn_temperature: Of `snn`.
      weights: Of the loss terms.
      start: p(x): `normal`, `smooth` (for images), or a function `(key, shape) -> x`.
      targets: p(y), `(key, num_classes, num_groups) -> [G]` int.
      prior: The data prior that `weights.tv` weighs, samples `[..., *shape]` to a value each, `[...]`.
      sets_per_chunk: Sets that take their T steps together; 0 chooses for the backend. Samples are bitwise the same on
        any number of devices for one value of it.
    """

    num_batches: int = 10
    batch_size: int = 500
    num_groups: int = 10
    num_steps: int = 256
    step_size: float = 0.1
    schedule: str = "linear"
    decay_magnitude: float = 4.0
    optimizer: str = "sgd"
    langevin_temperature: float = 0.0
    precision: str = "float32"
    contrastive: str | Callable[[Array], Array] = "mse"
    snn_temperature: float = 1.0
    weights: Weights = Weights()
    start: str | Start = "normal"
    targets: Callable[[Array, int, int], Array] = distinct_targets
    prior: Callable[[Array], Array] = losses.total_variation
    sets_per_chunk: int = 0

    @property
    def num_sets(self) -> int:
        """S, sets a mini-batch."""
        return self.batch_size // self.num_groups

    @property
    def couples_sets(self) -> bool:
        """Whether a loss term depends on all sets of a mini-batch at once."""
        return bool(self.weights.entropy) or (self.contrastive == "snn" and bool(self.weights.contr))

    @property
    def gradient_queries(self) -> int:
        """Teacher gradients that the whole synthesis asks for, one a sample and step."""
        return self.num_batches * self.batch_size * self.num_steps

    @property
    def forward_queries(self) -> int:
        """Teacher answers that the whole synthesis asks for besides the gradients: the final logits."""
        return self.num_batches * self.batch_size


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


def check(settings: SynthesisSettings, spec: DataSpec) -> None:
    """Refuses settings that cannot work for a data specification.

    Raises:
      CakeError: With the field at fault and the mend.
    """
    positive = ("num_batches", "batch_size", "num_groups", "step_size")
    for name in positive:
        if getattr(settings, name) <= 0:
            raise CakeError(f"synthesis.{name}: {getattr(settings, name)} must be above 0")
    for name in ("num_steps", "sets_per_chunk"):
        if getattr(settings, name) < 0:
            raise CakeError(f"synthesis.{name}: {getattr(settings, name)} is below 0")
    if settings.num_groups > spec.num_classes:
        raise CakeError(
            f"synthesis.num_groups: {settings.num_groups} groups need as many classes, the data has {spec.num_classes}"
        )
    if settings.batch_size % settings.num_groups:
        raise CakeError(
            f"synthesis.batch_size: {settings.batch_size} is not a multiple of num_groups = {settings.num_groups}"
        )
    if settings.schedule not in schedules.SYNTHESIS_SCHEDULES:
        raise CakeError(
            f"synthesis.schedule: '{settings.schedule}' is not one of {', '.join(schedules.SYNTHESIS_SCHEDULES)}"
        )
    if settings.precision not in PRECISIONS:
        raise CakeError(f"synthesis.precision: '{settings.precision}' is not one of {', '.join(PRECISIONS)}")
    if isinstance(settings.contrastive, str) and settings.contrastive not in CONTRASTIVE:
        raise CakeError(f"synthesis.contrastive: '{settings.contrastive}' is not one of {', '.join(CONTRASTIVE)}")
    if isinstance(settings.start, str) and settings.start not in STARTS:
        raise CakeError(f"synthesis.start: '{settings.start}' is not one of {', '.join(STARTS)}")
    if settings.start == "smooth" and not spec.is_image:
        raise CakeError(f"synthesis.start: inputs of shape {spec.shape} are no images; set it to 'normal'")
    if settings.contrastive == "snn" and settings.num_sets < 2:
        raise CakeError("synthesis.contrastive: 'snn' needs two sets or more a mini-batch; raise synthesis.batch_size")
    if settings.prior is losses.total_variation and settings.weights.tv and not spec.is_image:
        raise CakeError(f"synthesis.weights.tv: inputs of shape {spec.shape} are no images; set it to 0")
    langevin.check_optimizer(settings.optimizer, settings.langevin_temperature)


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
    eta = schedules.step_size(
        batch,
        settings.num_batches,
        base=settings.step_size,
        decay_magnitude=settings.decay_magnitude,
        schedule=settings.schedule,
    )
    first_set = batch * settings.num_sets
    sets, mask = parallel.deal(settings.num_sets, _sets_per_chunk(settings))
    result = _device_function(settings)(key, teacher, first_set + sets, mask, np.float32(eta))
    result = parallel.gather(result, settings.num_sets)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(settings.batch_size, *array.shape[2:])

    samples = SampleBatch(
        x=flat(result.x),
        logits=flat(result.logits),
        target=flat(result.target),
        step_size=np.full(settings.batch_size, eta, np.float32),
        set_index=np.repeat(np.arange(first_set, first_set + settings.num_sets, dtype=np.int32), settings.num_groups),
    )
    if not (np.isfinite(samples.x).all() and np.isfinite(samples.logits).all()):
        raise CakeError(
            f"synthesis: mini-batch {batch} is not finite (NaN) at step size {eta:.3g}; "
            "lower synthesis.step_size or synthesis.weights"
        )
    return samples, _info(samples, result.gap_start, settings)


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


def _sets_per_chunk(settings: SynthesisSettings) -> int:
    share = -(-settings.num_sets // parallel.device_count())
    if settings.couples_sets:
        return share
    if settings.sets_per_chunk:
        return settings.sets_per_chunk
    # A set or two of a small network fit in a CPU core's cache; an accelerator wants all that it can get.
    return 1 if jax.default_backend() == "cpu" else share


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
    spec, groups = teacher.spec, settings.num_groups
    set_keys = jax.vmap(functools.partial(jax.random.fold_in, key))(sets)
    start_keys, target_keys, noise_keys = jax.vmap(functools.partial(jax.random.split, num=3))(set_keys).T
    target = jax.vmap(lambda k: settings.targets(k, spec.num_classes, groups))(target_keys)
    start = STARTS[settings.start] if isinstance(settings.start, str) else settings.start
    x = jax.vmap(lambda k: start(k, (groups, *spec.shape)))(start_keys)
    optimizer = langevin.OPTIMIZERS[settings.optimizer]()
    step = functools.partial(
        langevin.step, step_size=eta, temperature=settings.langevin_temperature, optimizer=optimizer
    )

    def update(states: langevin.LangevinState, step_number: None) -> tuple[langevin.LangevinState, Array]:
        gradient, logits = jax.grad(energy, has_aux=True)(states.x, teacher, target, mask, settings)
        next_states, _ = jax.vmap(step)(noise_keys, states, gradient)
        return next_states, logit_gap(logits)

    states = jax.vmap(functools.partial(langevin.init, optimizer=optimizer))(x)
    states, gaps = lax.scan(update, states, None, length=settings.num_steps)
    logits = _logits(teacher, states.x)
    gap_start = gaps[0] if settings.num_steps else logit_gap(logits)
    return _SetResult(states.x, logits, target, gap_start)


def energy(x: Array, teacher: Teacher, target: Array, mask: Array, settings: SynthesisSettings) -> tuple[Array, Array]:
    """A chunk's share of L; its gradient with respect to a set is that of the whole mini-batch's L.

    Terms that couple sets are reduced over the devices, with the other devices' part held constant: so each device's
    gradient is exact, and no collective is differentiated.

    Args:
      x: c sets, `[c, G, *shape]`.
      teacher: The teacher.
      target: `[c, G]` int.
      mask: `[c]` bool, False for sets that only pad the chunk.
      settings: The settings; a term that couples sets needs the axis `parallel.AXIS`.

    Returns:
      The energy, scalar float32, and the logits `[c, G, K]` float32.

    Source: CAKE (arXiv 2306.02090), the extraction loss.
    """
    weights, groups = settings.weights, settings.num_groups
    logits = _logits(teacher, x)
    per_set = weights.cls * losses.classification(logits, target)
    if settings.contrastive == "mse":
        per_set += weights.contr * losses.contrastive_mse(logits)
    elif callable(settings.contrastive):
        per_set += weights.contr * jax.vmap(settings.contrastive)(logits)
    if weights.tv:
        per_set += weights.tv * settings.prior(x).mean(axis=-1)
    total = jnp.where(mask, per_set, 0.0).sum() / settings.num_sets
    if settings.contrastive == "snn" and weights.contr:
        everything = _with_other_devices(logits)
        labels, masks = (
            lax.all_gather(a, parallel.AXIS) for a in (target, jnp.broadcast_to(mask[:, None], target.shape))
        )
        snn = losses.soft_nearest_neighbour(
            everything.reshape(-1, everything.shape[-1]),
            labels.reshape(-1),
            temperature=settings.snn_temperature,
            mask=masks.reshape(-1),
        )
        total += weights.contr * 0.5 * groups**2 / snn
    if weights.entropy:
        local = jnp.where(mask[:, None, None], jax.nn.softmax(logits), 0.0).sum(axis=(0, 1))
        others = lax.stop_gradient(lax.psum(lax.stop_gradient(local), parallel.AXIS) - local)
        total += weights.entropy * losses.negative_entropy((local + others) / settings.batch_size)
    return total, logits


def logit_gap(logits: Array) -> Array:
    """Root mean squared distance between the logits of two samples of a set: `[..., G, K]` to `[...]`."""
    groups, classes = logits.shape[-2:]
    pairs = max(groups * (groups - 1), 1)
    return jnp.sqrt(2.0 * classes * losses.contrastive_mse(logits) / pairs)


def _logits(teacher: Teacher, x: Array) -> Array:
    """Float32 logits `[c, G, K]` of sets `[c, G, *shape]`, in the arithmetic of the teacher's variables."""
    sets, groups = x.shape[:2]
    leaves = [leaf for leaf in jax.tree.leaves(teacher.variables) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    dtype = leaves[0].dtype if leaves else x.dtype
    logits = teacher(x.reshape(sets * groups, *x.shape[2:]).astype(dtype))
    return logits.astype(jnp.float32).reshape(sets, groups, -1)


def _with_other_devices(local: Array) -> Array:
    """`[D, ...]`, all devices' arrays in order; only this device's own is differentiated."""
    everything = lax.all_gather(lax.stop_gradient(local), parallel.AXIS)
    return lax.dynamic_update_index_in_dim(everything, local, lax.axis_index(parallel.AXIS), 0)


def _cast(leaf: Array, dtype: jnp.dtype) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _info(samples: SampleBatch, gap_start: np.ndarray, settings: SynthesisSettings) -> SynthesisInfo:
    """Diagnostics of the final samples, on the host, from the logits that they are stored with."""
    logits = jnp.asarray(samples.logits).reshape(settings.num_sets, settings.num_groups, -1)
    target = jnp.asarray(samples.target).reshape(logits.shape[:2])
    return SynthesisInfo(
        step_size=float(samples.step_size[0]),
        cls=float(losses.classification(logits, target).mean()),
        contr=float(losses.contrastive_mse(logits).mean()),
        tv=float(settings.prior(jnp.asarray(samples.x)).mean()) if settings.weights.tv else 0.0,
        entropy=float(losses.negative_entropy(jax.nn.softmax(logits).mean(axis=(0, 1)))),
        target_accuracy=float(np.mean(np.argmax(samples.logits, -1) == samples.target)),
        logit_gap_start=float(np.median(gap_start)),
        logit_gap=float(np.median(logit_gap(logits))),
    )
