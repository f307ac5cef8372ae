"""The names and layouts of our architectures' weights in PyTorch.

A naming is a table of layers: the path of a layer in our variables, its name in PyTorch, and its kind. `names` turns a
table into a list of tensors. `weights.from_torch_weights` and `weights.to_torch_tensors` use the same list.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cake_jax.models.resnet import ResNet
from cake_jax.models.vgg import VGG
from cake_jax.models.vit import ViT

Variables = Mapping[str, Any]


class Layout(NamedTuple):
    """The conversion of one array between our layout and PyTorch's.

    Attributes:
      to_torch: Function from our layout to PyTorch's.
      from_torch: The inverse of `to_torch`.
    """

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]


class Name(NamedTuple):
    """The name of one tensor, in our variables and in PyTorch.

    Attributes:
      path: Path of the leaf in our variables. The collection comes first.
      torch: Name of the tensor in a `state_dict`.
      layout: Conversion between the two layouts.
    """

    path: tuple[str, ...]
    torch: str
    layout: Layout


SAME = Layout(lambda array: array, lambda array: array)
# Ours is [in, out], PyTorch's is [out, in].
MATRIX = Layout(np.transpose, np.transpose)
# Ours is [h, w, in, out], PyTorch's is [out, in, h, w].
KERNEL = Layout(lambda array: array.transpose(3, 2, 0, 1), lambda array: array.transpose(2, 3, 1, 0))


class Array(NamedTuple):
    """One array of a layer.

    Attributes:
      collection: Collection of our variables that holds the array.
      ours: Our name of the array.
      torch: PyTorch's name of the array.
      layout: Conversion between the two layouts.
    """

    collection: str
    ours: str
    torch: str
    layout: Layout


_BIAS = Array("params", "bias", "bias", SAME)
CONV = (Array("params", "kernel", "weight", KERNEL), _BIAS)
DENSE = (Array("params", "kernel", "weight", MATRIX), _BIAS)
LAYER_NORM = (Array("params", "scale", "weight", SAME), _BIAS)
BATCH_NORM = (
    *LAYER_NORM,
    Array("batch_stats", "mean", "running_mean", SAME),
    Array("batch_stats", "var", "running_var", SAME),
)


def _window(size: int, *, flat: bool = False) -> tuple[Array, ...]:
    """The arrays of a dense layer over windows of pixels, whose kernel is `[h w in, out]` here.

    In PyTorch the layer is a convolution, `[out, in, h, w]`, or with `flat` a dense layer, `[out, in h w]`.
    """

    def to_torch(array: np.ndarray) -> np.ndarray:
        kernel = KERNEL.to_torch(array.reshape(size, size, -1, array.shape[-1]))
        return kernel.reshape(len(kernel), -1) if flat else kernel

    def from_torch(array: np.ndarray) -> np.ndarray:
        kernel = KERNEL.from_torch(array.reshape(len(array), -1, size, size))
        return kernel.reshape(-1, len(array))

    return Array("params", "kernel", "weight", Layout(to_torch, from_torch)), _BIAS


class Layer(NamedTuple):
    """One layer of a naming.

    Attributes:
      ours: Path of the layer in a collection of our variables, separated by slashes.
      torch: Name of the layer in PyTorch. If it ends in an underscore, it is the prefix of the arrays' names. Otherwise
        a dot is added.
      arrays: Arrays of the layer. A bias that our layer lacks is left out.
    """

    ours: str
    torch: str
    arrays: tuple[Array, ...]


def names(module: Any, variables: Variables) -> dict[str, list[Name]]:
    """Returns all namings of an architecture's weights.

    Args:
      module: The architecture. It need not be one of ours.
      variables: Variables of the architecture, or their shapes.

    Returns:
      A dict from the naming to the names of all leaves of `variables`. The most common naming comes first. `flax`, our
      own paths joined by dots, is always present and comes last.
    """
    tables: dict[str, list[Name]] = {}
    if isinstance(module, ResNet):
        tables["torchvision"] = _tensors(_resnet(module), variables)
    elif isinstance(module, VGG):
        tables["torchvision"] = _tensors(_vgg(module, timm=False), variables)
        if module.large_head:
            tables["timm"] = _tensors(_vgg(module, timm=True), variables)
    elif isinstance(module, ViT):
        tables["timm"] = [*_vit_tokens("cls_token", "pos_embed"), *_tensors(_vit_timm(module), variables)]
        tables["torchvision"] = [
            *_vit_tokens("class_token", "encoder.pos_embedding"),
            *_tensors(_vit_torchvision(module), variables),
        ]
    paths = [
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    ]
    return {**tables, "flax": [Name(path, ".".join(path), SAME) for path in paths]}


def _tensors(layers: Iterator[Layer], variables: Variables) -> list[Name]:
    found = []
    for layer in layers:
        prefix = layer.torch if layer.torch.endswith("_") else f"{layer.torch}."
        for array in layer.arrays:
            path = (array.collection, *layer.ours.split("/"), array.ours)
            if array is not _BIAS or _has(variables, path):
                found.append(Name(path, prefix + array.torch, array.layout))
    return found


def _has(variables: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if key not in variables:
            return False
        variables = variables[key]
    return True


def _resnet(module: ResNet) -> Iterator[Layer]:
    """Layers of torchvision's `resnet*`. timm's plain ResNets have the same names."""
    yield Layer("Conv_0", "conv1", CONV)
    yield Layer("BatchNorm_0", "bn1", BATCH_NORM)
    block, convolutions, widening = ("Bottleneck", 3, 4) if module.bottleneck else ("BasicBlock", 2, 1)
    number, channels = 0, module.features[0]
    for stage, (count, features) in enumerate(zip(module.blocks, module.features, strict=True)):
        for place in range(count):
            ours, theirs = f"{block}_{number}", f"layer{stage + 1}.{place}"
            for layer in range(convolutions):
                yield Layer(f"{ours}/Conv_{layer}", f"{theirs}.conv{layer + 1}", CONV)
                yield Layer(f"{ours}/BatchNorm_{layer}", f"{theirs}.bn{layer + 1}", BATCH_NORM)
            if channels != widening * features or (stage and not place):
                yield Layer(f"{ours}/Conv_{convolutions}", f"{theirs}.downsample.0", CONV)
                yield Layer(f"{ours}/BatchNorm_{convolutions}", f"{theirs}.downsample.1", BATCH_NORM)
            number, channels = number + 1, widening * features
    yield Layer("Dense_0", "fc", DENSE)


def _vgg(module: VGG, timm: bool) -> Iterator[Layer]:
    """Layers of `vgg*_bn`, numbered by their position in PyTorch's sequence.

    The sequence repeats convolution, batch norm and ReLU, with a pool after each stage. A head of one dense layer,
    which neither package has, is named `classifier`.
    """
    number = place = 0
    for count in module.layers:
        for _ in range(count):
            yield Layer(f"Conv_{number}", f"features.{place}", CONV)
            yield Layer(f"BatchNorm_{number}", f"features.{place + 1}", BATCH_NORM)
            number, place = number + 1, place + 3
        place += 1
    if not module.large_head:
        yield Layer("Dense_0", "classifier", DENSE)
    elif timm:
        yield Layer("Dense_0", "pre_logits.fc1", _window(7))
        yield Layer("Dense_1", "pre_logits.fc2", _window(1))
        yield Layer("Dense_2", "head.fc", DENSE)
    else:
        yield Layer("Dense_0", "classifier.0", _window(7, flat=True))
        yield Layer("Dense_1", "classifier.3", DENSE)
        yield Layer("Dense_2", "classifier.6", DENSE)


def _vit_tokens(first: str, position: str) -> list[Name]:
    return [Name(("params", "class_token"), first, SAME), Name(("params", "position"), position, SAME)]


def _vit_timm(module: ViT) -> Iterator[Layer]:
    """Layers of timm's `vit_*`."""
    yield Layer("Dense_0", "patch_embed.proj", _window(module.patch))
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


def _vit_torchvision(module: ViT) -> Iterator[Layer]:
    """Layers of torchvision's `vit_*`, which use `torch.nn.MultiheadAttention`."""
    yield Layer("Dense_0", "conv_proj", _window(module.patch))
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
