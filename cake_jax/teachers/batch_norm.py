"""Reads the batch-norm statistics of a teacher.

Only the method `cake_jax.methods.inversion` uses this module. Every other method sees only a teacher's inputs and
logits.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.teachers.teacher import Teacher
from cake_jax.types import CakeError


class NormInput(NamedTuple):
    """The input of one batch-norm layer and the layer's statistics.

    Attributes:
      x: Input of the layer, `[B, ..., C]`.
      mean: Running mean of the training data, `[C]`.
      var: Running variance of the training data, `[C]`.
    """

    x: Array
    mean: Array
    var: Array


def answer_with_norm_inputs(teacher: Teacher, x: Array) -> tuple[Array, list[NormInput]]:
    """Returns the teacher's logits and the inputs of its batch-norm layers.

    Args:
      teacher: A Flax Linen network. The list stays empty for a teacher of another kind.
      x: Inputs `[B, *shape]`, normalised.

    Returns:
      Logits `[B, K]`, and one `NormInput` for each batch-norm layer, in the order of the calls.
    """
    found: list[NormInput] = []

    def record(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            statistics: list[Array] = [layer.get_variable("batch_stats", name) for name in ("mean", "var")]
            found.append(NormInput(args[0], *statistics))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        logits = teacher(x)
    return logits, found


def check_has_statistics(teacher: Teacher) -> None:
    """Refuses a teacher without readable batch-norm layers.

    Raises:
      CakeError: The teacher has no Linen batch-norm layer.
    """
    x = jax.ShapeDtypeStruct((2, *teacher.spec.shape), jnp.float32)
    _, layers = jax.eval_shape(answer_with_norm_inputs, teacher, x)
    if not layers:
        raise CakeError("method: this teacher has no batch-norm statistics that can be read; use 'naive' or 'cake'")
