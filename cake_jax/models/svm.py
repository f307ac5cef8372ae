"""Support vector machines: one dense layer on fixed features, with a loss of their own."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from cake_jax import losses
from cake_jax.models.layers import Dense


class LinearSVM(nn.Module):
    """Scores that are linear in the flattened input, in the primal form.

    Trained on classes, it minimises `class_loss`. A student, trained on a teacher's logits, minimises the distillation
    loss like any other, its scores taken as logits: a linear model of the same features without margin and C.

    Attributes:
      num_classes: K.
      penalty: C, the weight of the kernel's norm.
    """

    num_classes: int
    penalty: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Scores `[B, K]`, used as logits, of x `[B, *shape]`."""
        return Dense(self.num_classes, name="scores")(self.transform(x.reshape(x.shape[0], -1)))

    def transform(self, x: Array) -> Array:
        """Features `[B, F]` of flat inputs x `[B, D]`: here x itself."""
        return x

    @nn.nowrap
    def class_loss(self, params: Any, logits: Array, labels: Array, batch_size: int) -> Array:
        """`hinge + C ||W|| / N`, whose mean over a mini-batch is the mean hinge loss plus `C ||W|| / N`.

        Args:
          params: The module's.
          logits: Scores `[..., K]`.
          labels: Classes, `[...]` int.
          batch_size: N, examples of the mini-batch, on all devices.

        Returns:
          Per example, `[...]` float32.
        """
        norm = optax.safe_norm(params["scores"]["kernel"].ravel(), 0.0)
        return losses.multiclass_hinge(logits, labels) + self.penalty * norm / batch_size


class PolynomialSVM(LinearSVM):
    """Scores that are linear in the powers of each input, without mixed products.

    Attributes:
      degree: The highest power.
    """

    degree: int = 3

    def transform(self, x: Array) -> Array:
        """`[B, degree D]`: x, then its squares, and so on."""
        return jnp.concatenate([x**power for power in range(1, self.degree + 1)], axis=-1)


class RBFSVM(LinearSVM):
    """Scores that are linear in random Fourier features, whose products approximate `exp(-gamma ||x - x'||^2)`.

    The random numbers are not trained. They are in the collection `fourier`, so that they are saved with the parameters
    but weight decay leaves them alone. The default gamma suits a few inputs of unit scale; images, whose squared
    distances grow with the number of pixels, want one as much smaller.

    Attributes:
      num_features: F, random features.
      gamma: Of the kernel, per squared unit of x.

    Source: Rahimi, Recht 2007, *Random features for large-scale kernel machines*, algorithm 1.
    """

    num_features: int = 100
    gamma: float = 1.0

    def transform(self, x: Array) -> Array:
        """`[B, F]`: `sqrt(2 / F) cos(x omega + phase)`."""
        width = self.num_features

        def draw(name: str, distribution: Callable[[Array, tuple[int, ...]], Array], *shape: int) -> Array:
            return self.variable("fourier", name, lambda: distribution(self.make_rng("params"), shape)).value

        omega = math.sqrt(2 * self.gamma) * draw("omega", jax.random.normal, x.shape[-1], width)
        phase = 2 * math.pi * draw("phase", jax.random.uniform, width)
        return math.sqrt(2 / width) * jnp.cos(x @ omega + phase)
