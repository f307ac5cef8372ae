"""The names of vision transformers' layers in PyTorch."""

from collections.abc import Iterator

from cake_jax.models.vit import ViT
from cake_jax.teachers.torch.layers import DENSE, LAYER_NORM, SAME, Array, Layer, window


def vit(module: ViT, shape: tuple[int, ...]) -> dict[str, Iterator[Layer]]:
    """The layers by the naming."""
    return {"timm": _timm(module), "torchvision": _torchvision(module)}


def _tokens(first: str, position: str) -> Layer:
    return Layer("", "", (Array("params", "class_token", first, SAME), Array("params", "position", position, SAME)))


def _timm(module: ViT) -> Iterator[Layer]:
    """Layers of timm's `vit_*`."""
    yield _tokens("cls_token", "pos_embed")
    yield Layer("Dense_0", "patch_embed.proj", window(module.patch, module.patch))
    for number in range(module.depth):
        ours, theirs = f"TransformerBlock_{number}", f"blocks.{number}"
        yield Layer(f"{ours}/LayerNorm_0", f"{theirs}.norm1", LAYER_NORM)
        yield Layer(f"{ours}/qkv", f"{theirs}.attn.qkv", DENSE)
        yield Layer(f"{ours}/out", f"{theirs}.attn.proj", DENSE)
        yield Layer(f"{ours}/LayerNorm_1", f"{theirs}.norm2", LAYER_NORM)
        yield Layer(f"{ours}/Dense_0", f"{theirs}.mlp.fc1", DENSE)
        yield Layer(f"{ours}/Dense_1", f"{theirs}.mlp.fc2", DENSE)
    yield Layer("LayerNorm_0", "norm", LAYER_NORM)
    yield Layer("Dense_1", "head", DENSE)


def _torchvision(module: ViT) -> Iterator[Layer]:
    """Layers of torchvision's `vit_*`, which use `torch.nn.MultiheadAttention`."""
    yield _tokens("class_token", "encoder.pos_embedding")
    yield Layer("Dense_0", "conv_proj", window(module.patch, module.patch))
    for number in range(module.depth):
        ours, theirs = f"TransformerBlock_{number}", f"encoder.layers.encoder_layer_{number}"
        yield Layer(f"{ours}/LayerNorm_0", f"{theirs}.ln_1", LAYER_NORM)
        yield Layer(f"{ours}/qkv", f"{theirs}.self_attention.in_proj_", DENSE)
        yield Layer(f"{ours}/out", f"{theirs}.self_attention.out_proj", DENSE)
        yield Layer(f"{ours}/LayerNorm_1", f"{theirs}.ln_2", LAYER_NORM)
        yield Layer(f"{ours}/Dense_0", f"{theirs}.mlp.0", DENSE)
        yield Layer(f"{ours}/Dense_1", f"{theirs}.mlp.3", DENSE)
    yield Layer("LayerNorm_0", "encoder.ln", LAYER_NORM)
    yield Layer("Dense_1", "heads.head", DENSE)
