"""The names and layouts of our architectures' weights in PyTorch.

A naming is a table of layers: the path of a layer in our variables, its name in PyTorch, and its kind. `names` turns a
table into a list of tensors. `weights.from_torch_weights` and `weights.to_torch_tensors` use the same list.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from cake_jax.models.cnn import CNN, AdaptivePoolCNN
from cake_jax.models.lenet import LeNet5
from cake_jax.models.linear import LogisticRegression
from cake_jax.models.mlp import MLP
from cake_jax.models.mobilenet import MobileNetV2
from cake_jax.models.resnet import ResNet
from cake_jax.models.shufflenet import ShuffleNetV2
from cake_jax.models.vgg import VGG
from cake_jax.models.vit import ViT
from cake_jax.models.wide_resnet import WideResNet
from cake_jax.teachers.torch import convolutional, plain, transformers
from cake_jax.teachers.torch.layers import BIAS, SAME, Layer, Layout

Variables = Mapping[str, Any]

# By architecture: a function from the module and the shape of its inputs to its layers, by the naming. The most common
# naming comes first.
NAMINGS: dict[type, Callable[[Any, tuple[int, ...]], dict[str, Iterator[Layer]]]] = {
    MLP: plain.mlp,
    LogisticRegression: plain.mlp,
    LeNet5: plain.lenet,
    CNN: plain.cnn,
    AdaptivePoolCNN: plain.cnn,
    WideResNet: plain.wide_resnet,
    ResNet: convolutional.resnet,
    VGG: convolutional.vgg,
    MobileNetV2: convolutional.mobilenet_v2,
    ShuffleNetV2: convolutional.shufflenet_v2,
    ViT: transformers.vit,
}
# By architecture: the options that decide which names and shapes its tensors have, and the usual values of each.
OPTIONS: dict[type, dict[str, tuple[Any, ...]]] = {
    ResNet: {"imagenet_stem": (False, True), "shortcut": ("projection", "padding")},
    VGG: {"large_head": (False, True), "smallest": (1, 4)},
}


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


def names(module: Any, variables: Variables, shape: tuple[int, ...]) -> dict[str, list[Name]]:
    """Returns all namings of an architecture's weights.

    Args:
      module: The architecture. It need not be one of ours.
      variables: Variables of the architecture, or their shapes.
      shape: Shape of one input.

    Returns:
      A dict from the naming to the names of all leaves of `variables`. The most common naming comes first. `flax`, our
      own paths joined by dots, is always present and comes last.
    """
    namings = NAMINGS[type(module)](module, shape) if type(module) in NAMINGS else {}
    paths = leaves_by_path(variables)
    tables = {naming: _tensors(layers, set(paths)) for naming, layers in namings.items()}
    return {**tables, "flax": [Name(path, ".".join(path), SAME) for path in paths]}


def leaves_by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves of a pytree by their paths, which are the names of the branches."""
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def other_options(module: Any) -> list[dict[str, Any]]:
    """Returns the changes of a module's options to other values in `OPTIONS`, those of the fewest options first."""
    options = OPTIONS.get(type(module), {})
    combinations = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    changes = [
        {field: value for field, value in values.items() if value != getattr(module, field)} for values in combinations
    ]
    return sorted(filter(None, changes), key=len)


def _tensors(layers: Iterator[Layer], paths: set[tuple[str, ...]]) -> list[Name]:
    found = []
    for layer in layers:
        prefix = layer.torch if not layer.torch or layer.torch.endswith("_") else f"{layer.torch}."
        for array in layer.arrays:
            path = (array.collection, *filter(None, layer.ours.split("/")), array.ours)
            if array is not BIAS or path in paths:
                found.append(Name(path, prefix + array.torch, array.layout))
    return found
