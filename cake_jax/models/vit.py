"""The vision transformer for small images that the CAKE reference uses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Dense
from cake_jax.models.operations import product


class SmallViT(nn.Module):
    """Shifted patch tokens and locality self-attention.

    110,381 parameters on 32 x 32 x 1 images of 10 classes at the defaults. Images whose sides `patch` does not divide
    are padded with zeros, the mean in normalised units.

    Attributes:
      num_classes: K.
      patch: Side of a square patch, pixels.
      dim: Width of a token.
      depth: Transformer blocks.
      heads: Attention heads.
      head_dim: Width of a head.
      mlp_dim: Hidden width of the feed-forward layers.

    Source: Lee, Lee, Song 2021 (arXiv 2112.13492), sections 3.1 and 3.2.
    """

    num_classes: int
    patch: int = 4
    dim: int = 32
    depth: int = 3
    heads: int = 4
    head_dim: int = 64
    mlp_dim: int = 32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        height, width = (-size % self.patch for size in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), (height // 2, -(-height // 2)), (width // 2, -(-width // 2)), (0, 0)))
        tokens = _norm()(_patches(_with_shifts(x, self.patch // 2), self.patch))
        tokens = Dense(self.dim)(tokens)
        normal = nn.initializers.normal(1.0)
        first = self.param("class_token", normal, (1, 1, self.dim)).astype(tokens.dtype)
        tokens = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.dim)), tokens], axis=1)
        tokens += self.param("position", normal, (1, tokens.shape[1], self.dim)).astype(tokens.dtype)
        for _ in range(self.depth):
            tokens += LocalityAttention(self.heads, self.head_dim)(_norm()(tokens))
            hidden = nn.gelu(Dense(self.mlp_dim)(_norm()(tokens)), approximate=False)
            tokens += Dense(self.dim)(hidden)
        return Dense(self.num_classes)(_norm()(tokens[:, 0]))


class LocalityAttention(nn.Module):
    """Self-attention with a learnt temperature, in which no token attends to itself.

    Tokens are narrower than heads here. So the kernels are multiplied with each other first, those of query and key,
    those of value and output, and what is left to do with the tokens is half as much.

    Attributes:
      heads: H.
      head_dim: Width of a head.
    """

    heads: int
    head_dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, N, D]` to the same shape."""
        dim, width = x.shape[-1], self.heads * self.head_dim
        log_scale = self.param("log_scale", nn.initializers.constant(-0.5 * jnp.log(self.head_dim)), ())
        kernel, _ = _DenseParameters(dim, 3 * width, use_bias=False, name="Dense_0")()
        output, bias = _DenseParameters(width, dim, name="Dense_1")()
        query, key, value = jnp.moveaxis(kernel.reshape(dim, 3, self.heads, self.head_dim), 1, 0)
        query_key = jnp.einsum("dhe,fhe->dhf", query, key).reshape(dim, -1)
        value_output = jnp.einsum("dhe,hef->hdf", value, output.reshape(self.heads, self.head_dim, dim))
        asked = product(x, query_key).reshape(*x.shape[:2], self.heads, dim)
        score = jnp.einsum("bqhd,bkd->bqhk", asked, x).astype(jnp.float32) * jnp.exp(log_scale)
        score = jnp.where(jnp.eye(x.shape[1], dtype=bool)[:, None], -jnp.inf, score)
        attention = jax.nn.softmax(score).astype(x.dtype)
        found = jnp.einsum("bqhk,bkd->bqhd", attention, x)
        return product(found.reshape(*x.shape[:2], -1), value_output.reshape(-1, dim)) + bias


class _DenseParameters(nn.Module):
    """Kernel and bias of an `nn.Dense`, to be used in another order."""

    inputs: int
    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> tuple[Array, Array | float]:
        kernel = self.param("kernel", nn.linear.default_kernel_init, (self.inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else 0.0


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5)


def _with_shifts(x: Array, shift: int) -> Array:
    """x `[B, H, W, C]` and its four diagonal shifts, zeros moving in: `[B, H, W, 5 C]`."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    corners = [(0, 0), (0, 2 * shift), (2 * shift, 0), (2 * shift, 2 * shift)]
    shifted = [padded[:, row : row + height, column : column + width] for row, column in corners]
    return jnp.concatenate([x, *shifted], axis=-1)


def _patches(x: Array, patch: int) -> Array:
    """x `[B, H, W, C]` to flattened patches `[B, H W / patch^2, patch^2 C]`, row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)
