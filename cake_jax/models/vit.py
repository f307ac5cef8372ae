"""Vision transformers: the standard one, and the CAKE reference's for small images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Dense
from cake_jax.models.operations import product
from cake_jax.types import CakeError

# Epsilon of the layer norms in timm and in the paper. PyTorch's default is 1e-5.
_STANDARD_EPSILON = 1e-6


class ViT(nn.Module):
    """The standard vision transformer: a class token, learnt positions, pre-norm blocks, one dense layer.

    timm's `vit_*` weights fit it. The defaults are those of timm's `vit_tiny_patch16_224`. Its small and base models
    have `dim` 384 and 768, and `heads` and `mlp_dim` in proportion. On 224 x 224 x 3 images of 1000 classes, the three
    models have 5,717,416, 22,050,664 and 86,567,656 parameters.

    Small images need small patches. If `patch` does not divide a side of the image, the image is padded with zeros, the
    mean in normalised units.

    Attributes:
      num_classes: Number of classes K.
      patch: Side of a square patch in pixels.
      dim: Width of a token, a multiple of `heads`.
      depth: Number of transformer blocks.
      heads: Number of attention heads.
      mlp_dim: Hidden width of the feed-forward layers.

    Raises:
      CakeError: `dim` is not a multiple of `heads`.

    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929). Sizes: Touvron et al. 2020 (arXiv 2012.12877), table 1.
    """

    num_classes: int
    patch: int = 16
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_dim: int = 768

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise CakeError(f"model.options.dim: {self.dim} is not a multiple of heads = {self.heads}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        tokens = Dense(self.dim)(flat_patches(_whole_patches(x, self.patch), self.patch))
        tokens = _with_class_token_and_positions(self, tokens, nn.initializers.normal(0.02))
        for _ in range(self.depth):
            tokens = TransformerBlock(self.heads, self.mlp_dim)(tokens)
        return Dense(self.num_classes)(_norm(_STANDARD_EPSILON)(tokens[:, 0]))


class TransformerBlock(nn.Module):
    """Self-attention, then two dense layers with a GELU between them.

    A layer norm precedes each of these two parts, and each part's result is added to the part's input.

    Attributes:
      heads: Number of attention heads.
      mlp_dim: Units of the first dense layer.
    """

    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, N, D]` of tokens x `[B, N, D]`."""
        dim = x.shape[-1]
        heads = Dense(3 * dim, name="qkv")(_norm(_STANDARD_EPSILON)(x))
        query, key, value = jnp.moveaxis(heads.reshape(*x.shape[:2], 3, self.heads, dim // self.heads), 2, 0)
        attended = jax.nn.dot_product_attention(query, key, value)
        x += Dense(dim, name="out")(attended.reshape(x.shape))
        hidden = nn.gelu(Dense(self.mlp_dim)(_norm(_STANDARD_EPSILON)(x)), approximate=False)
        return x + Dense(dim)(hidden)


class SmallViT(nn.Module):
    """A vision transformer for small images, with shifted patch tokens and locality self-attention.

    If `patch` does not divide a side of the image, the image is padded with zeros, the mean in normalised units. With
    the defaults, on 32 x 32 x 1 images of 10 classes, the network has 110,381 parameters.

    Attributes:
      num_classes: Number of classes K.
      patch: Side of a square patch in pixels.
      dim: Width of a token.
      depth: Number of transformer blocks.
      heads: Number of attention heads.
      head_dim: Width of an attention head.
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
        x = _whole_patches(x, self.patch)
        tokens = _norm()(flat_patches(with_diagonal_shifts(x, self.patch // 2), self.patch))
        tokens = _with_class_token_and_positions(self, Dense(self.dim)(tokens), nn.initializers.normal(1.0))
        for _ in range(self.depth):
            tokens += LocalityAttention(self.heads, self.head_dim)(_norm()(tokens))
            hidden = nn.gelu(Dense(self.mlp_dim)(_norm()(tokens)), approximate=False)
            tokens += Dense(self.dim)(hidden)
        return Dense(self.num_classes)(_norm()(tokens[:, 0]))


class LocalityAttention(nn.Module):
    """Self-attention with a learnt temperature, in which no token attends to itself.

    Tokens are narrower than heads here. So the code first multiplies the kernels of query and key with each other, and
    those of value and output. That halves the work for each token.

    Attributes:
      heads: Number of attention heads.
      head_dim: Width of an attention head.
    """

    heads: int
    head_dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, N, D]` of tokens x `[B, N, D]`."""
        dim, width = x.shape[-1], self.heads * self.head_dim
        log_scale = self.param("log_scale", nn.initializers.constant(-0.5 * jnp.log(self.head_dim)), ())
        kernel, _ = _DenseParameters(dim, 3 * width, use_bias=False, name="Dense_0")()
        output, bias = _DenseParameters(width, dim, name="Dense_1")()
        query, key, value = jnp.moveaxis(kernel.reshape(dim, 3, self.heads, self.head_dim), 1, 0)
        query_key = jnp.einsum("dhe,fhe->dhf", query, key).reshape(dim, -1)
        value_output = jnp.einsum("dhe,hef->hdf", value, output.reshape(self.heads, self.head_dim, dim))
        queries = product(x, query_key).reshape(*x.shape[:2], self.heads, dim)
        score = jnp.einsum("bqhd,bkd->bqhk", queries, x).astype(jnp.float32) * jnp.exp(log_scale)
        score = jnp.where(jnp.eye(x.shape[1], dtype=bool)[:, None], -jnp.inf, score)
        attention = jax.nn.softmax(score).astype(x.dtype)
        attended = jnp.einsum("bqhk,bkd->bqhd", attention, x)
        return product(attended.reshape(*x.shape[:2], -1), value_output.reshape(-1, dim)) + bias


class _DenseParameters(nn.Module):
    """The kernel and the bias of an `nn.Dense`, for use in another order. Without a bias the second result is 0."""

    inputs: int
    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> tuple[Array, Array | float]:
        kernel = self.param("kernel", nn.linear.default_kernel_init, (self.inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else 0.0


def _norm(epsilon: float = 1e-5) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon)


def _with_class_token_and_positions(module: nn.Module, tokens: Array, init: nn.initializers.Initializer) -> Array:
    """Puts a class token before tokens `[B, N, D]` and adds positions, which gives `[B, 1 + N, D]`.

    The class token and the positions are parameters of `module`.
    """
    first = module.param("class_token", init, (1, 1, tokens.shape[-1])).astype(tokens.dtype)
    tokens = jnp.concatenate([jnp.broadcast_to(first, (tokens.shape[0], 1, tokens.shape[-1])), tokens], axis=1)
    return tokens + module.param("position", init, (1, *tokens.shape[1:])).astype(tokens.dtype)


def _whole_patches(x: Array, patch: int) -> Array:
    """Pads images x `[B, H, W, C]` with zeros until `patch` divides their sides."""
    height, width = (-size % patch for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (height // 2, -(-height // 2)), (width // 2, -(-width // 2)), (0, 0)))


def with_diagonal_shifts(x: Array, shift: int) -> Array:
    """x `[B, H, W, C]` and its four diagonal shifts by `shift` pixels, with zeros moving in: `[B, H, W, 5 C]`."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    corners = [(0, 0), (0, 2 * shift), (2 * shift, 0), (2 * shift, 2 * shift)]
    shifted = [padded[:, row : row + height, column : column + width] for row, column in corners]
    return jnp.concatenate([x, *shifted], axis=-1)


def flat_patches(x: Array, patch: int) -> Array:
    """Square patches of x `[B, H, W, C]`, flattened, in row order: `[B, H W / patch^2, patch^2 C]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)
