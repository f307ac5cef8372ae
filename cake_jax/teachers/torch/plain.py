"""The names of the layers of MLPs, LeNet-5 and plain convolutional networks in PyTorch, and of wide residual networks.

PyTorch flattens images as `[C, H, W]`, and we as `[H, W, C]`. So the first dense layer after an image is a window.
"""

from collections.abc import Iterator

from cake_jax.models.cnn import CNN, AdaptivePoolCNN
from cake_jax.models.lenet import LeNet5
from cake_jax.models.linear import LogisticRegression
from cake_jax.models.mlp import MLP
from cake_jax.models.wide_resnet import WideResNet
from cake_jax.teachers.torch.layers import BATCH_NORM, CONV, DENSE, Array, Layer, window

Shape = tuple[int, ...]


def mlp(module: MLP | LogisticRegression, shape: Shape) -> dict[str, Iterator[Layer]]:
    """The layers by the naming.

    `Sequential` is that of a sequence of dense layers and ReLUs, with batch norms between them, and `Flatten` that of
    the same sequence after a `Flatten`. With `fc`, the layers are attributes `fc1`, `bn1`, `fc2` ...
    """
    hidden, batch_norm = 0, False
    if isinstance(module, MLP):
        hidden, batch_norm = 1 + module.num_hidden, module.batch_norm
    places = [(number * (3 if batch_norm else 2), f"{number + 1}") for number in range(hidden + 1)]

    def layers(names: list[tuple[str, str]]) -> Iterator[Layer]:
        for number, (dense, norm) in enumerate(names):
            yield Layer(f"Dense_{number}", dense, DENSE if number else _after_image(shape))
            if batch_norm and number < hidden:
                yield Layer(f"BatchNorm_{number}", norm, BATCH_NORM)

    return {
        "Sequential": layers([(f"{place}", f"{place + 1}") for place, _ in places]),
        "Flatten": layers([(f"{place + 1}", f"{place + 2}") for place, _ in places]),
        "fc": layers([(f"fc{number}", f"bn{number}") for _, number in places]),
    }


def lenet(module: LeNet5, shape: Shape) -> dict[str, Iterator[Layer]]:
    """The layers by the naming, which is that of github.com/huawei-noah/Data-Efficient-Model-Compression (DAFL)."""
    height, width = lenet_positions(shape)
    return {
        "DAFL": iter(
            [
                *(Layer(f"Conv_{number}", f"conv{number + 1}", CONV) for number in range(3)),
                Layer("Dense_0", "fc1", window(height, width, flat=True)),
                Layer("Dense_1", "fc2", DENSE),
            ]
        )
    }


def cnn(module: CNN | AdaptivePoolCNN, shape: Shape) -> dict[str, Iterator[Layer]]:
    """The layers by the naming, which is that of `networks.cnn`."""
    head = DENSE if isinstance(module, AdaptivePoolCNN) else window(*cnn_positions(shape), flat=True)
    convolutions = (Layer(f"Conv_{number}", f"conv{number + 1}", CONV) for number, _ in enumerate(module.features))
    return {"cake_jax": iter([*convolutions, Layer("Dense_0", "fc", head)])}


def wide_resnet(module: WideResNet, shape: Shape) -> dict[str, Iterator[Layer]]:
    """The layers by the naming, which is that of github.com/xternalz/WideResNet-pytorch and of RepDistiller."""
    return {"WideResNet-pytorch": _wide_resnet(module)}


def _wide_resnet(module: WideResNet) -> Iterator[Layer]:
    yield Layer("Conv_0", "conv1", CONV)
    channels, number = 16, 0
    for stage in range(3):
        for place in range(module.depth // 6):
            ours, theirs = f"PreActivationBlock_{number}/", f"block{stage + 1}.layer.{place}."
            features = 16 * module.width * 2**stage
            is_projected = channels != features
            if is_projected:
                yield Layer(f"{ours}Conv_0", f"{theirs}convShortcut", CONV)
            for layer in (0, 1):
                yield Layer(f"{ours}BatchNorm_{layer}", f"{theirs}bn{layer + 1}", BATCH_NORM)
                yield Layer(f"{ours}Conv_{layer + is_projected}", f"{theirs}conv{layer + 1}", CONV)
            channels, number = features, number + 1
    yield Layer("BatchNorm_0", "bn1", BATCH_NORM)
    yield Layer("Dense_0", "fc", DENSE)


def lenet_positions(shape: Shape) -> tuple[int, int]:
    """Height and width of LeNet-5's last convolution, for images of this shape."""
    height, width = (((max(side, 32) - 4) // 2 - 4) // 2 - 4 for side in shape[:2])
    return height, width


def cnn_positions(shape: Shape) -> tuple[int, int]:
    """Height and width of a CNN's last convolution after its pool, for images of this shape."""
    height, width = ((((side - 2 - 3) // 2 - 2) // 2 - 2) // 2 for side in shape[:2])
    return height, width


def _after_image(shape: Shape) -> tuple[Array, ...]:
    return window(*shape[:2], flat=True) if len(shape) == 3 else DENSE
