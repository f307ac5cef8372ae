"""Layers that are fast on the backend at hand, with the parameters of their `flax.linen` originals."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from cake_jax.models.operations import convolution, max_pool, product


class Dense(nn.Dense):
    """`nn.Dense` whose products of bf16 numbers are summed in float32."""

    dot_general: Any = lambda x, kernel, *_, **options: product(x, kernel)


class Conv(nn.Module):
    """A convolution of square windows, with a 2 x 2 max-pool of the result if wanted.

    Names, shapes and first values of the parameters are those of `nn.Conv`, so a checkpoint fits both.

    Attributes:
      features: F.
      kernel_size: Side of the window.
      strides: Of the window, in both directions.
      padding: Pixels of zeros on all sides.
      use_bias: Whether a bias is added.
      kernel_init: First values of the kernel.
      pool: Whether the maximum over 2 x 2 pixels is taken, with stride 2; an odd last row or column is dropped.
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
            # Of an odd number of rows or columns the pool drops the last: not worth computing, still less its gradient.
            height, width = (size - (size - self.kernel_size + 1) % 2 for size in x.shape[1:3])
            x = x[:, :height, :width]
        y = convolution(x, kernel, self.strides, self.padding, split_columns=self.pool)
        if self.pool:
            y = max_pool(y, split_columns=True)
        if self.use_bias:
            # After the pool there is less to add to. A row of it, made beforehand, leaves XLA a loop without divisions,
            # which few channels otherwise need at every element.
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            row = lax.optimization_barrier(jnp.tile(bias, y.shape[2]))
            y = (y.reshape(*y.shape[:2], -1) + row).reshape(y.shape)
        return y
