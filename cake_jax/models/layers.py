"""Layers that are fast on the current backend, and have the parameters of their `flax.linen` originals."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from cake_jax.models.operations import convolution, product


class Dense(nn.Dense):
    """`nn.Dense` that sums products of bf16 numbers in float32."""

    dot_general: Any = lambda x, kernel, *_, **options: product(x, kernel)


class Conv(nn.Module):
    """A convolution with a square window, optionally followed by a 2 x 2 max-pool.

    The parameters have the names, shapes and initial values of `nn.Conv`, so a checkpoint fits both.

    Attributes:
      features: Number of output channels F.
      kernel_size: Side of the window in pixels.
      strides: Stride of the window in both directions.
      padding: Number of rows and columns of zeros on each side.
      use_bias: Whether a bias is added.
      kernel_init: Initializer of the kernel.
      pool: Whether a 2 x 2 max-pool of stride 2 follows. It drops an odd last row or column.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    pool: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H', W', F]` of x `[B, H, W, C]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        x, kernel = promote_dtype(x, self.param("kernel", self.kernel_init, shape))
        if self.pool and self.strides == 1 and not self.padding:
            # The pool would drop an odd last row or column. Without it, the convolution and its gradient are cheaper.
            height, width = (size - (size - self.kernel_size + 1) % 2 for size in x.shape[1:3])
            x = x[:, :height, :width]
        y = convolution(x, kernel, self.strides, self.padding, pool=self.pool)
        if self.use_bias:
            # The pool comes first because it leaves fewer elements. With few channels, XLA would add the bias in a loop
            # with a division for every element. Adding one long row, computed before the loop, needs none.
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            row = lax.optimization_barrier(jnp.tile(bias, y.shape[2]))
            y = (y.reshape(*y.shape[:2], -1) + row).reshape(y.shape)
        return y
