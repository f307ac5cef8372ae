"""Vision transformers: the standard one, and the one for small images that the CAKE reference uses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.models.layers import Dense
from cake_jax.models.operations import product
from cake_jax.types import CakeError

# Of timm's layer norms, and of the paper's; PyTorch's own is 1e-5.
_STANDARD_EPSILON = 1e-6


class ViT(nn.Module):
    """The standard vision transformer: a class token, learnt positions, pre-norm blocks, one dense layer.

    The form that timm's `vit_*` weights fit. The defaults are those of its `vit_tiny_patch16_224`; its small and base
    models have the dimensions 384 and 768, and `heads` and `mlp_dim` in proportion. These three have 5,717,416,
    22,050,664 and 86,567,656 parameters on 224 x 224 x 3 images of 1000 classes. Small images want small patches; those
    whose sides `patch` does not divide are padded with zeros, the mean in normalised units.

    Attributes:
      num_classes: K.
      patch: Side of a square patch, pixels.
      dim: Width of a token, a multiple of `heads`.
      depth: Transformer blocks.
      heads: Attention heads.
      mlp_dim: Hidden width of the feed-forward layers.

    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929); the sizes of Touvron et al. 2020 (arXiv 2012.12877), table 1.
    """

    num_classes: int
    patch: int = 16
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_dim: int = 768

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise CakeError(f"model.options.dim: {self.dim} is not a multiple of the {self.heads} heads")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, K]` of images x `[B, H, W, C]`."""
        tokens = Dense(self.dim)(_patches(_whole_patches(x, self.patch), self.patch))
        tokens = _with_class_token_and_positions(self, tokens, nn.initializers.normal(0.02))
        for _ in range(self.depth):
            tokens = TransformerBlock(self.heads, self.mlp_dim)(tokens)
        return Dense(self.num_classes)(_norm(_STANDARD_EPSILON)(tokens[:, 0]))


class TransformerBlock(nn.Module):
    """Self-attention and two dense layers with a GELU between, each after a layer norm and added to its input.

    Attributes:
      heads: H.
      mlp_dim: Units of the first dense layer.
    """

    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, N, D]` to the same shape."""
        dim = x.shape[-1]
        heads = Dense(3 * dim, name="qkv")(_norm(_STANDARD_EPSILON)(x))
        query, key, value = jnp.moveaxis(heads.reshape(*x.shape[:2], 3, self.heads, dim // self.heads), 2, 0)
        found = jax.nn.dot_product_attention(query, key, value)
        x += Dense(dim, name="out")(found.reshape(x.shape))
        hidden = nn.gelu(Dense(self.mlp_dim)(_norm(_STANDARD_EPSILON)(x)), approximate=False)
        return x + Dense(dim)(hidden)


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
        x = _whole_patches(x, self.patch)
        tokens = _norm()(_patches(_with_shifts(x, self.patch // 2), self.patch))
        tokens = _with_class_token_and_positions(self, Dense(self.dim)(tokens), nn.initializers.normal(1.0))
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


def _norm(epsilon: float = 1e-5) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon)


def _with_class_token_and_positions(module: nn.Module, tokens: Array, init: nn.initializers.Initializer) -> Array:
    """Tokens `[B, N, D]` to `[B, 1 + N, D]`, with parameters of `module`."""
    first = module.param("class_token", init, (1, 1, tokens.shape[-1])).astype(tokens.dtype)
    tokens = jnp.concatenate([jnp.broadcast_to(first, (tokens.shape[0], 1, tokens.shape[-1])), tokens], axis=1)
    return tokens + module.param("position", init, (1, *tokens.shape[1:])).astype(tokens.dtype)


def _whole_patches(x: Array, patch: int) -> Array:
    """Images with zeros around them where `patch` does not divide their sides."""
    height, width = (-size % patch for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (height // 2, -(-height // 2)), (width // 2, -(-width // 2)), (0, 0)))


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
