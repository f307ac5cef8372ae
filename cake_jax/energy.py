"""The loss that samples descend, exact for each device's share of a mini-batch."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import losses, parallel
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher
from cake_jax.teachers.statistics import NormInput, answer_with_norm_inputs


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
    logits, norm_inputs = _answers(teacher, x, look_inside=bool(weights.statistics))
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
        total += weights.entropy * losses.negative_entropy(_batch_mean(jax.nn.softmax(logits), mask, settings))
    if weights.statistics:
        for layer in norm_inputs:
            inputs = layer.x.astype(jnp.float32).reshape(*target.shape, -1, layer.x.shape[-1])
            # About the known mean, so that the square of it does not cancel.
            shift = _batch_mean((inputs - layer.mean).mean(axis=2), mask, settings)
            square = _batch_mean(jnp.square(inputs - layer.mean).mean(axis=2), mask, settings)
            moments = layer.mean + shift, square - jnp.square(shift)
            total += weights.statistics * losses.moment_distance(*moments, layer.mean, layer.var)
    return total, logits


def _batch_mean(values: Array, mask: Array, settings: SynthesisSettings) -> Array:
    """Mean over the samples of the mini-batch of values `[c, G, ...]`, with the other devices' part held constant."""
    local = jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0).sum(axis=(0, 1))
    others = lax.stop_gradient(lax.psum(lax.stop_gradient(local), parallel.AXIS) - local)
    return (local + others) / settings.batch_size


def logit_gap(logits: Array) -> Array:
    """Root mean squared distance between the logits of two samples of a set: `[..., G, K]` to `[...]`."""
    groups, classes = logits.shape[-2:]
    pairs = max(groups * (groups - 1), 1)
    return jnp.sqrt(2.0 * classes * losses.contrastive_mse(logits) / pairs)


def set_logits(teacher: Teacher, x: Array) -> Array:
    """Float32 logits `[c, G, K]` of sets `[c, G, *shape]`, in the arithmetic of the teacher's variables."""
    return _answers(teacher, x)[0]


def _answers(teacher: Teacher, x: Array, *, look_inside: bool = False) -> tuple[Array, list[NormInput]]:
    """`set_logits`, and with a look inside what the teacher's batch norm sees of the samples, `[c G, ..., C]` each."""
    sets, groups = x.shape[:2]
    leaves = [leaf for leaf in jax.tree.leaves(teacher.variables) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    x = x.reshape(sets * groups, *x.shape[2:]).astype(leaves[0].dtype if leaves else x.dtype)
    logits, norm_inputs = answer_with_norm_inputs(teacher, x) if look_inside else (teacher(x), [])
    return logits.astype(jnp.float32).reshape(sets, groups, -1), norm_inputs


def _with_other_devices(local: Array) -> Array:
    """`[D, ...]`, all devices' arrays in order; only this device's own is differentiated."""
    everything = lax.all_gather(lax.stop_gradient(local), parallel.AXIS)
    return lax.dynamic_update_index_in_dim(everything, local, lax.axis_index(parallel.AXIS), 0)
