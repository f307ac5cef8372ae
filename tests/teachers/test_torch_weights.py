"""The same weights have the same logits in PyTorch and in our architectures, in both directions."""

import jax
import numpy as np
import pytest

from cake_jax import models
from cake_jax.export import to_safetensors
from cake_jax.teachers import from_linen, from_torch_weights, to_torch_tensors
from cake_jax.types import DataSpec

torch = pytest.importorskip("torch")
networks = pytest.importorskip("torch_networks")

IMAGES = DataSpec((32, 32, 3), 10)
VIT = {"patch": 8, "dim": 24, "depth": 2, "heads": 3, "mlp_dim": 40}
VIT_SIZES = (32, *VIT.values(), 10)
WIDTHS = (8, 16, 16, 24, 24)

CASES = {
    "resnet18": (lambda: networks.ResNet((2, 2, 2, 2), (64, 128, 256, 512), 10), "resnet18", {}),
    "resnet18, ImageNet stem": (
        lambda: networks.ResNet((1, 2), (8, 16), 10, imagenet_stem=True),
        "resnet18",
        {"blocks": (1, 2), "features": (8, 16), "imagenet_stem": True},
    ),
    "resnet50, narrow": (
        lambda: networks.ResNet((1, 2), (8, 16), 10, bottleneck=True),
        "resnet50",
        {"blocks": (1, 2), "features": (8, 16)},
    ),
    "resnet20, shallow": (
        lambda: networks.ResNet((1, 1, 1), (16, 32, 64), 10),
        "resnet20",
        {"blocks": (1, 1, 1)},
    ),
    "resnet20, shortcuts of zeros": (
        lambda: networks.ResNet((1, 1, 1), (16, 32, 64), 10, padding=True),
        "resnet20",
        {"blocks": (1, 1, 1), "shortcut": "padding"},
    ),
    "resnet8x4, narrow": (
        lambda: networks.ResNet((1, 1, 1), (16, 24, 32), 10, channels=8),
        "resnet8x4",
        {"features": (16, 24, 32), "stem_features": 8},
    ),
    "mobilenet_v2, shallow": (
        lambda: networks.MobileNetV2((1, 1, 1, 2, 2, 1, 2, 1), (1, 2, 1, 1, 1, 1, 1), 10),
        "mobilenet_v2",
        {"strides": (1, 1, 1, 2, 2, 1, 2, 1), "blocks": (1, 2, 1, 1, 1, 1, 1)},
    ),
    "shufflenet_v2, shallow": (
        lambda: networks.ShuffleNetV2((24, 116, 232, 464, 1024), (2, 1, 1), 10),
        "shufflenet_v2",
        {"blocks": (2, 1, 1)},
    ),
    "shufflenet_v2, small stem": (
        lambda: networks.ShuffleNetV2((8, 16, 24, 32, 40), (1, 1, 1), 10, imagenet_stem=False),
        "shufflenet_v2",
        {"features": (8, 16, 24, 32, 40), "blocks": (1, 1, 1), "imagenet_stem": False},
    ),
    # 32 pixels are few enough that it matters which pools there are.
    "vgg13_bn, narrow": (
        lambda: networks.VGG((2, 2, 2, 2, 2), WIDTHS, 10),
        "vgg13_bn",
        {"features": WIDTHS, "large_head": True},
    ),
    "vgg13 of pytorch-cifar, narrow": (
        lambda: networks.VGG((2, 2, 2, 2, 2), WIDTHS, 10, large_head=False),
        "vgg13_bn",
        {"features": WIDTHS, "smallest": 1},
    ),
    "vgg13 of RepDistiller, narrow": (
        lambda: networks.StagedVGG((2, 2, 2, 2, 2), WIDTHS, 10),
        "vgg13_bn",
        {"features": WIDTHS},
    ),
    "timm ViT": (lambda: networks.TimmViT(*VIT_SIZES), "vit", VIT),
    "torchvision ViT": (lambda: networks.TorchvisionViT(*VIT_SIZES), "vit", VIT),
}
FULL = {
    "resnet50": (
        lambda: networks.ResNet((3, 4, 6, 3), (64, 128, 256, 512), 10, bottleneck=True, imagenet_stem=True),
        "resnet50",
        {"imagenet_stem": True},
    ),
    "vgg11_bn": (
        lambda: networks.VGG((1, 1, 2, 2, 2), (64, 128, 256, 512, 512), 10),
        "vgg11_bn",
        {"large_head": True},
    ),
    "resnet32x4": (
        lambda: networks.ResNet((5, 5, 5), (64, 128, 256), 10, channels=32),
        "resnet32x4",
        {},
    ),
    "mobilenet_v2": (
        lambda: networks.MobileNetV2((2, 1, 2, 2, 2, 1, 2, 1), (1, 2, 3, 4, 3, 3, 1), 10),
        "mobilenet_v2",
        {},
    ),
    "shufflenet_v2": (
        lambda: networks.ShuffleNetV2((24, 116, 232, 464, 1024), (4, 8, 4), 10),
        "shufflenet_v2",
        {},
    ),
    "vit_tiny": (lambda: networks.TimmViT(32, 16, 192, 12, 3, 768, 10), "vit", {}),
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)


@jax.jit
def call(teacher, x):
    return teacher(x)


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in FULL)])
def test_logits_are_equal_in_both_directions(case, x):
    build, name, options = (CASES | FULL)[case]
    network = networks.trained(build)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            assert value.abs().max() > 1e-3, "the statistics differ from their initial values"
    teacher = from_torch_weights(network.state_dict(), name, IMAGES, options)
    networks.assert_same_logits(call(teacher, x), networks.logits(network, x))
    assert teacher.num_params == sum(parameter.numel() for parameter in network.parameters())

    naming = "torchvision" if case.startswith("torchvision") else None
    tensors = to_torch_tensors(teacher, naming)[1]
    other = build().eval()
    other.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()})
    np.testing.assert_array_equal(networks.logits(other, x), networks.logits(network, x))


def test_pytorch_loads_our_student(tmp_path, x):
    """The load is `strict`. If torchvision is installed, its network with the small stem loads the student too."""
    load_file = pytest.importorskip("safetensors.torch").load_file
    module = models.create("resnet18", IMAGES)
    rng = np.random.default_rng(0)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    statistics = jax.tree.map(lambda leaf: leaf + np.float32(rng.uniform(0, 0.1)), variables["batch_stats"])
    student = from_linen(module, {"params": variables["params"], "batch_stats": statistics}, IMAGES)
    assert to_safetensors(student, tmp_path / "student.safetensors") == "torchvision"

    network = networks.ResNet((2, 2, 2, 2), (64, 128, 256, 512), 10).eval()
    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    networks.assert_same_logits(call(student, x), networks.logits(network, x))
    try:
        from torchvision.models import resnet18
    except Exception:  # missing, or built for another PyTorch
        return
    network = resnet18(num_classes=10).eval()
    network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    networks.assert_same_logits(call(student, x), networks.logits(network, x))


@pytest.fixture(scope="module")
def small():
    return networks.trained(lambda: networks.ResNet((1, 1), (8, 16), 10))


OPTIONS = {"blocks": (1, 1), "features": (8, 16)}


@pytest.mark.parametrize("layout", ["pytorch-cifar", "pytorch-cifar100"])
def test_names_of_common_repositories_are_read_and_written(layout, small, x):
    state = networks.renamed(small.state_dict(), layout)
    assert not set(state) & {"layer2.0.downsample.0.weight"}
    teacher = from_torch_weights(
        {"net": {f"module.{name}": tensor for name, tensor in state.items()}}, "resnet18", IMAGES, OPTIONS
    )
    networks.assert_same_logits(call(teacher, x), networks.logits(small, x))
    written = to_torch_tensors(teacher, layout)[1]
    assert set(written) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, state[name].numpy())
