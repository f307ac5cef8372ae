"""The vision transformer for small images that the CAKE reference uses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


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
        tokens = nn.Dense(self.dim)(tokens)
        normal = nn.initializers.normal(1.0)
        first = self.param("class_token", normal, (1, 1, self.dim)).astype(tokens.dtype)
        tokens = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.dim)), tokens], axis=1)
        tokens += self.param("position", normal, (1, tokens.shape[1], self.dim)).astype(tokens.dtype)
        for _ in range(self.depth):
            tokens += LocalityAttention(self.heads, self.head_dim)(_norm()(tokens))
            hidden = nn.gelu(nn.Dense(self.mlp_dim)(_norm()(tokens)), approximate=False)
            tokens += nn.Dense(self.dim)(hidden)
        return nn.Dense(self.num_classes)(_norm()(tokens[:, 0]))


class LocalityAttention(nn.Module):
    """Self-attention with a learnt temperature, in which no token attends to itself.

    Attributes:
      heads: H.
      head_dim: Width of a head.
    """

    heads: int
    head_dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, N, D]` to the same shape."""
        log_scale = self.param("log_scale", nn.initializers.constant(-0.5 * jnp.log(self.head_dim)), ())
        products = nn.Dense(3 * self.heads * self.head_dim, use_bias=False)(x)
        query, key, value = jnp.moveaxis(products.reshape(*x.shape[:2], 3, self.heads, self.head_dim), 2, 0)
        score = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) * jnp.exp(log_scale)
        score = jnp.where(jnp.eye(x.shape[1], dtype=bool), -jnp.inf, score)
        attention = jax.nn.softmax(score).astype(x.dtype)
        out = jnp.einsum("bhqk,bkhd->bqhd", attention, value)
        return nn.Dense(x.shape[-1])(out.reshape(*x.shape[:2], -1))


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
