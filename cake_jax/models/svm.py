"""Support vector machines: one dense layer on fixed features, with its own loss on classes."""

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
    """A linear support vector machine in the primal form: scores are linear in the flattened input.

    Trained on classes, the module minimises `class_loss`. As a student of a teacher's logits, it minimises the
    distillation loss with its scores as logits. It is then a linear model of the same features, without margin and C.

    Attributes:
      num_classes: Number of classes K.
      penalty: C, the weight of the kernel's norm in `class_loss`.
    """

    num_classes: int
    penalty: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Scores `[B, K]` of x `[B, *shape]`, which serve as logits."""
        return Dense(self.num_classes, name="scores")(self.transform(x.reshape(x.shape[0], -1)))

    def transform(self, x: Array) -> Array:
        """Features `[B, F]` of flattened inputs x `[B, D]`: here x itself."""
        return x

    @nn.nowrap
    def class_loss(self, params: Any, logits: Array, labels: Array, batch_size: int) -> Array:
        """The loss `hinge + C ||W|| / N` of each example, so its mean is the mean hinge loss plus `C ||W|| / N`.

        Args:
          params: The module's parameters. W is the kernel of the dense layer.
          logits: Scores `[..., K]`.
          labels: Classes, `[...]` int.
          batch_size: N, the number of examples in the mini-batch, over all devices.

        Returns:
          In units of the scores for each example, `[...]` float32.
        """
        norm = optax.safe_norm(params["scores"]["kernel"].ravel(), 0.0)
        return losses.multiclass_hinge(logits, labels) + self.penalty * norm / batch_size


class PolynomialSVM(LinearSVM):
    """A support vector machine on the powers of each input value, without products of different values.

    Attributes:
      degree: The highest power.
    """

    degree: int = 3

    def transform(self, x: Array) -> Array:
        """Features `[B, degree D]`: x, then its squares, and so on up to the highest power."""
        return jnp.concatenate([x**power for power in range(1, self.degree + 1)], axis=-1)


class RBFSVM(LinearSVM):
    """A support vector machine on random Fourier features. Their products approximate `exp(-gamma ||x - x'||^2)`.

    The random numbers are not trained. They are in the collection `fourier`, so they are saved with the parameters, and
    weight decay does not change them. The default gamma suits inputs of a few values of unit scale. Squared distances
    grow with the number of pixels, so images need a gamma that is smaller in proportion.

    Attributes:
      num_features: Number of random features F.
      gamma: Width parameter of the kernel, in 1 / squared units of x.

    Source: Rahimi, Recht 2007, *Random features for large-scale kernel machines*, algorithm 1.
    """

    num_features: int = 100
    gamma: float = 1.0

    def transform(self, x: Array) -> Array:
        """Features `sqrt(2 / F) cos(x omega + phase)`, `[B, F]`, of flattened inputs x `[B, D]`."""
        width = self.num_features

        def draw(name: str, distribution: Callable[[Array, tuple[int, ...]], Array], *shape: int) -> Array:
            return self.variable("fourier", name, lambda: distribution(self.make_rng("params"), shape)).value

        omega = math.sqrt(2 * self.gamma) * draw("omega", jax.random.normal, x.shape[-1], width)
        phase = 2 * math.pi * draw("phase", jax.random.uniform, width)
        return math.sqrt(2 / width) * jnp.cos(x @ omega + phase)
