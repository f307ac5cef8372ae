"""The objective L that the samples descend. Its gradients are exact for each device's share of a mini-batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cake_jax import losses, parallel
from cake_jax.synthesis.settings import SynthesisSettings
from cake_jax.teachers import Teacher

# (x [c, G, *shape], teacher, target [c, G], mask [c], settings) -> (L, logits [c, G, K])
Objective = Callable[[Array, Teacher, Array, Array, Any], tuple[Array, Array]]


def objective(
    x: Array, teacher: Teacher, target: Array, mask: Array, settings: SynthesisSettings
) -> tuple[Array, Array]:
    """A chunk's share of L. Its gradient with respect to the chunk's sets is that of the whole mini-batch's L.

    Args:
      x: c sets, `[c, G, *shape]`.
      teacher: The teacher.
      target: Target classes, `[c, G]` int.
      mask: `[c]` bool. False for sets that only pad the chunk.
      settings: The settings. If a term couples the sets, the caller maps over the axis `parallel.AXIS`.

    Returns:
      The loss, scalar float32, and the logits `[c, G, K]` float32.

    Source: CAKE (arXiv 2306.02090), the extraction loss.
    """
    logits = set_logits(teacher, x)
    return loss(logits, x, target, mask, settings), logits


def loss(logits: Array, x: Array, target: Array, mask: Array, settings: SynthesisSettings) -> Array:
    """A chunk's share of L, computed from the teacher's logits.

    A term that couples the sets is reduced over the devices. Each device holds the part of the others constant. So each
    device's gradient is exact, and no collective operation is differentiated.

    Args:
      logits: The teacher's logits of x, `[c, G, K]` float32.
      x: See `objective`.
      target: See `objective`.
      mask: See `objective`.
      settings: See `objective`.

    Returns:
      Scalar float32.
    """
    weights, groups = settings.weights, settings.num_groups
    per_set = weights.cls * losses.classification(logits, target)
    if settings.contrastive == "mse":
        per_set += weights.contr * losses.contrastive_mse(logits)
    elif callable(settings.contrastive):
        per_set += weights.contr * jax.vmap(settings.contrastive)(logits)
    for prior, weight in weights.data_priors:
        per_set += weight * prior.value(x).mean(axis=-1)
    total = jnp.where(mask, per_set, 0.0).sum() / settings.num_sets
    if settings.contrastive == "snn" and weights.contr:
        everything = _with_other_devices(logits)
        labels, masks = (
            lax.all_gather(a, parallel.AXIS) for a in (target, jnp.broadcast_to(mask[:, None], target.shape))
        )
        labels, masks = labels.reshape(-1), masks.reshape(-1)
        snn = losses.soft_nearest_neighbour(
            everything.reshape(-1, everything.shape[-1]), labels, temperature=settings.snn_temperature, mask=masks
        )
        # Without a sample that has a mate, the loss is 0 and says nothing.
        has_mates = ((labels[:, None] == labels) & masks[:, None] & masks).sum() > masks.sum()
        total += jnp.where(has_mates, weights.contr * 0.5 * groups**2 / jnp.where(has_mates, snn, 1.0), 0.0)
    if weights.entropy:
        total += weights.entropy * losses.negative_entropy(batch_mean(jax.nn.softmax(logits), mask, settings))
    return total


def batch_mean(values: Array, mask: Array, settings: SynthesisSettings) -> Array:
    """The mean of values `[c, G, ...]` over the mini-batch. The part of the other devices is held constant."""
    local = jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0).sum(axis=(0, 1))
    others = lax.stop_gradient(lax.psum(lax.stop_gradient(local), parallel.AXIS) - local)
    return (local + others) / settings.batch_size


def set_logits(teacher: Teacher, x: Array) -> Array:
    """The logits `[c, G, K]` float32 of sets `[c, G, *shape]`, computed in the precision of the teacher's variables."""
    return teacher(flat_samples(teacher, x)).astype(jnp.float32).reshape(*x.shape[:2], -1)


def flat_samples(teacher: Teacher, x: Array) -> Array:
    """Reshapes sets `[c, G, *shape]` to `[c G, *shape]`, in the precision of the teacher's variables."""
    leaves = [leaf for leaf in jax.tree.leaves(teacher.variables) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return x.reshape(-1, *x.shape[2:]).astype(leaves[0].dtype if leaves else x.dtype)


def _with_other_devices(local: Array) -> Array:
    """The arrays of all D devices in order, `[D, ...]`. Only this device's own array is differentiated."""
    everything = lax.all_gather(lax.stop_gradient(local), parallel.AXIS)
    return lax.dynamic_update_index_in_dim(everything, local, lax.axis_index(parallel.AXIS), 0)
