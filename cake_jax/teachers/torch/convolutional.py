"""The names of convolutional networks' layers in PyTorch: of torchvision, of timm, and of the field's repositories."""

from collections.abc import Callable, Iterator

from cake_jax.models.mobilenet import MobileNetV2
from cake_jax.models.resnet import ResNet
from cake_jax.models.shufflenet import ShuffleNetV2
from cake_jax.models.vgg import VGG
from cake_jax.teachers.torch.layers import BATCH_NORM, CONV, DENSE, Layer, window

# The names of a convolution and of its batch norm, from the block's and their number in it.
_InBlock = Callable[[str, int], tuple[str, str]]


def resnet(module: ResNet, shape: tuple[int, ...]) -> dict[str, Iterator[Layer]]:
    """The layers by the naming.

    `torchvision` is also that of timm and of RepDistiller. `pytorch-cifar` is that of github.com/kuangliu/pytorch-cifar
    and of github.com/akamaster/pytorch_resnet_cifar10, and `pytorch-cifar100` that of
    github.com/weiaicunzai/pytorch-cifar100.
    """

    def numbered(block: str, number: int) -> tuple[str, str]:
        return f"{block}.conv{number + 1}", f"{block}.bn{number + 1}"

    def in_sequence(block: str, number: int) -> tuple[str, str]:
        return f"{block}.residual_function.{3 * number}", f"{block}.residual_function.{3 * number + 1}"

    plain = ("conv1", "bn1"), "layer{}", numbered
    return {
        "torchvision": _resnet(module, *plain, "downsample", "fc"),
        "pytorch-cifar": _resnet(module, *plain, "shortcut", "linear"),
        "pytorch-cifar100": _resnet(
            module, ("conv1.0", "conv1.1"), "conv{}_x", in_sequence, "shortcut", "fc", first_stage=2
        ),
    }


def _resnet(
    module: ResNet,
    stem: tuple[str, str],
    stages: str,
    in_block: _InBlock,
    shortcut: str,
    head: str,
    *,
    first_stage: int = 1,
) -> Iterator[Layer]:
    yield Layer("Conv_0", stem[0], CONV)
    yield Layer("BatchNorm_0", stem[1], BATCH_NORM)
    block, convolutions, widening = ("Bottleneck", 3, 4) if module.bottleneck else ("BasicBlock", 2, 1)
    number, channels = 0, module.stem_features or module.features[0]
    for stage, (count, features) in enumerate(zip(module.blocks, module.features, strict=True)):
        for place in range(count):
            ours, theirs = f"{block}_{number}", f"{stages.format(stage + first_stage)}.{place}"
            for layer in range(convolutions):
                convolution, norm = in_block(theirs, layer)
                yield Layer(f"{ours}/Conv_{layer}", convolution, CONV)
                yield Layer(f"{ours}/BatchNorm_{layer}", norm, BATCH_NORM)
            changes_shape = channels != widening * features or (stage and not place)
            if changes_shape and module.shortcut == "projection":
                yield Layer(f"{ours}/Conv_{convolutions}", f"{theirs}.{shortcut}.0", CONV)
                yield Layer(f"{ours}/BatchNorm_{convolutions}", f"{theirs}.{shortcut}.1", BATCH_NORM)
            number, channels = number + 1, widening * features
    yield Layer("Dense_0", head, DENSE)


def vgg(module: VGG, shape: tuple[int, ...]) -> dict[str, Iterator[Layer]]:
    """The layers by the naming.

    A head of one dense layer, which neither torchvision nor timm has, is named `classifier`, as in
    github.com/kuangliu/pytorch-cifar. That network has a pool after every stage. `RepDistiller` is the naming of
    github.com/HobbitLong/RepDistiller, whose networks leave pools out. Their tensors have the same shapes, so each
    naming belongs to one value of `smallest` only. Otherwise the wrong network would be accepted.
    """
    if module.large_head:
        return {"torchvision": _vgg(module, _LARGE_HEAD), "timm": _vgg(module, _TIMM_HEAD)}
    if module.smallest > 1:
        return {"RepDistiller": _vgg(module, _SMALL_HEAD, in_blocks=True)}
    return {"torchvision": _vgg(module, _SMALL_HEAD)}


_SMALL_HEAD = (Layer("Dense_0", "classifier", DENSE),)
_LARGE_HEAD = (
    Layer("Dense_0", "classifier.0", window(7, 7, flat=True)),
    Layer("Dense_1", "classifier.3", DENSE),
    Layer("Dense_2", "classifier.6", DENSE),
)
_TIMM_HEAD = (
    Layer("Dense_0", "pre_logits.fc1", window(7, 7)),
    Layer("Dense_1", "pre_logits.fc2", window(1, 1)),
    Layer("Dense_2", "head.fc", DENSE),
)


def _vgg(module: VGG, head: tuple[Layer, ...], *, in_blocks: bool = False) -> Iterator[Layer]:
    """Layers of `vgg*_bn`, numbered by their position in PyTorch's sequence.

    The sequence repeats convolution, batch norm and ReLU, with a pool after each stage. With `in_blocks`, each stage is
    a sequence of its own.
    """
    number = place = 0
    for stage, count in enumerate(module.layers):
        for _ in range(count):
            sequence = f"block{stage}" if in_blocks else "features"
            yield Layer(f"Conv_{number}", f"{sequence}.{place}", CONV)
            yield Layer(f"BatchNorm_{number}", f"{sequence}.{place + 1}", BATCH_NORM)
            number, place = number + 1, place + 3
        place = 0 if in_blocks else place + 1
    yield from head


def mobilenet_v2(module: MobileNetV2, shape: tuple[int, ...]) -> dict[str, Iterator[Layer]]:
    """The layers by the naming, which is torchvision's."""
    return {"torchvision": _mobilenet_v2(module)}


def _mobilenet_v2(module: MobileNetV2) -> Iterator[Layer]:
    yield Layer("Conv_0", "features.0.0", CONV)
    yield Layer("BatchNorm_0", "features.0.1", BATCH_NORM)
    total = sum(module.blocks)
    for number in range(total):
        # Only the first stage has no expansion. Every convolution but the last one is in a sequence of its own.
        convolutions = 2 if number < module.blocks[0] else 3
        for layer in range(convolutions):
            block, is_last = f"features.{number + 1}.conv", layer + 1 == convolutions
            names = (f"{layer}", f"{layer + 1}") if is_last else (f"{layer}.0", f"{layer}.1")
            yield Layer(f"InvertedResidual_{number}/Conv_{layer}", f"{block}.{names[0]}", CONV)
            yield Layer(f"InvertedResidual_{number}/BatchNorm_{layer}", f"{block}.{names[1]}", BATCH_NORM)
    yield Layer("Conv_1", f"features.{total + 1}.0", CONV)
    yield Layer("BatchNorm_1", f"features.{total + 1}.1", BATCH_NORM)
    yield Layer("Dense_0", "classifier.1", DENSE)


def shufflenet_v2(module: ShuffleNetV2, shape: tuple[int, ...]) -> dict[str, Iterator[Layer]]:
    """The layers by the naming, which is torchvision's."""
    return {"torchvision": _shufflenet_v2(module)}


def _shufflenet_v2(module: ShuffleNetV2) -> Iterator[Layer]:
    def pairs(ours: str, first: int, theirs: str, *places: int) -> Iterator[Layer]:
        """Convolutions at these places of PyTorch's sequence, each followed by its batch norm."""
        for number, place in enumerate(places, first):
            yield Layer(f"{ours}Conv_{number}", f"{theirs}.{place}", CONV)
            yield Layer(f"{ours}BatchNorm_{number}", f"{theirs}.{place + 1}", BATCH_NORM)

    yield from pairs("", 0, "conv1", 0)
    unit = 0
    for stage, count in enumerate(module.blocks, 2):
        for place in range(count):
            ours, theirs = f"ShuffleUnit_{unit}/", f"stage{stage}.{place}"
            if not place:
                yield from pairs(ours, 0, f"{theirs}.branch1", 0, 2)
            yield from pairs(ours, 0 if place else 2, f"{theirs}.branch2", 0, 3, 5)
            unit += 1
    yield from pairs("", 1, "conv5", 0)
    yield Layer("Dense_0", "fc", DENSE)
