"""The loss that samples descend, exact for each device's share of a mini-batch."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import losses, parallel
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher


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
    logits = set_logits(teacher, x)
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


def set_logits(teacher: Teacher, x: Array) -> Array:
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
