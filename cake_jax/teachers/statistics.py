"""What batch normalisation remembers of a teacher's training data.

The one look inside a teacher, for the one method that says so, `cake_jax.methods.inversion`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.teachers.teacher import Teacher
from cake_jax.types import CakeError


class NormInput(NamedTuple):
    """What goes into a batch-norm layer, and what its training data had there.

    Attributes:
      x: `[B, ..., C]`.
      mean: Running mean `[C]`.
      var: Running variance `[C]`.
    """

    x: Array
    mean: Array
    var: Array


def answer_with_norm_inputs(teacher: Teacher, x: Array) -> tuple[Array, list[NormInput]]:
    """The teacher's logits, and what its batch-norm layers see, in the order in which they are called.

    Args:
      teacher: A Flax Linen network; of another kind there are no layers to be seen.
      x: `[B, *shape]`.

    Returns:
      Logits `[B, K]`, and a `NormInput` a layer.
    """
    seen: list[NormInput] = []

    def look(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            known: list[Array] = [layer.get_variable("batch_stats", name) for name in ("mean", "var")]
            seen.append(NormInput(args[0], *known))
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        logits = teacher(x)
    return logits, seen


def check_has_statistics(teacher: Teacher) -> None:
    """Refuses a teacher without batch-norm layers that can be seen.

    Raises:
      CakeError: It has none.
    """
    x = jax.ShapeDtypeStruct((2, *teacher.spec.shape), jnp.float32)
    _, layers = jax.eval_shape(answer_with_norm_inputs, teacher, x)
    if not layers:
        raise CakeError("method: this teacher has no batch-norm statistics to look at; take 'naive' or 'cake'")
