"""The same weights have the same logits in PyTorch and in our architectures, in both directions."""

import os
import pickle

import jax
import numpy as np
import pytest
from cake_errors import message_of

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
    "vgg11_bn, narrow": (
        lambda: networks.VGG((1, 1, 2, 2, 2), WIDTHS, 10),
        "vgg11_bn",
        {"features": WIDTHS, "large_head": True},
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
    "vit_tiny": (lambda: networks.TimmViT(32, 16, 192, 12, 3, 768, 10), "vit", {}),
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)


def trained(build):
    torch.manual_seed(0)
    return networks.train(build(), 32, 10)


@jax.jit
def call(teacher, x):
    return teacher(x)


def assert_same_logits(ours, theirs):
    assert np.ptp(theirs, axis=0).max() > 0.01 * np.abs(theirs).max(), "different inputs have different logits"
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in FULL)])
def test_logits_are_equal_in_both_directions(case, x):
    build, name, options = (CASES | FULL)[case]
    network = trained(build)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            assert value.abs().max() > 1e-3, "the statistics differ from their initial values"
    teacher = from_torch_weights(network.state_dict(), name, IMAGES, options)
    assert_same_logits(call(teacher, x), networks.logits(network, x))
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
    assert_same_logits(call(student, x), networks.logits(network, x))
    try:
        from torchvision.models import resnet18
    except Exception:  # missing, or built for another PyTorch
        return
    network = resnet18(num_classes=10).eval()
    network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert_same_logits(call(student, x), networks.logits(network, x))


@pytest.fixture(scope="module")
def small():
    return trained(lambda: networks.ResNet((1, 1), (8, 16), 10))


OPTIONS = {"blocks": (1, 1), "features": (8, 16)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {
            name: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in state.items()
        },
    ],
    ids=["plain", "wrapped", "DataParallel", "Lightning", "compiled", "parameters"],
)
def test_files_of_torch_save_are_read(wrap, small, tmp_path, x):
    torch.save(wrap(small.state_dict()), tmp_path / "weights.pt")
    teacher = from_torch_weights(tmp_path / "weights.pt", "resnet18", IMAGES, OPTIONS)
    assert_same_logits(call(teacher, x), networks.logits(small, x))


def test_half_precision_becomes_float32(small, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    for dtype in (torch.float16, torch.bfloat16):
        rounded = {name: t.to(dtype) if t.is_floating_point() else t for name, t in small.state_dict().items()}
        save_file(rounded, tmp_path / "half.safetensors")
        torch.save(rounded, tmp_path / "half.pt")
        for file in ("half.safetensors", "half.pt"):
            teacher = from_torch_weights(tmp_path / file, "resnet18", IMAGES, OPTIONS)
            assert teacher.variables["params"]["Dense_0"]["kernel"].dtype == np.float32
            expected = rounded["fc.weight"].float().numpy().T
            np.testing.assert_array_equal(teacher.variables["params"]["Dense_0"]["kernel"], expected)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["instead", "beside"])
def test_malicious_file_runs_no_code(tmp_path, small, place, zipped):
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    content = Payload(trace) if place == "instead" else {**small.state_dict(), "fc.extra": Payload(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert message_of(from_torch_weights, path, "resnet18", IMAGES, OPTIONS).startswith(f"{path}: ")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "loading the file without protection does run code"


def test_plain_pickle_runs_no_code(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert message_of(from_torch_weights, path, "resnet18", IMAGES, OPTIONS).startswith(f"{path}: ")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "loading the file without protection does run code"


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "whole module"])
def test_damaged_file_is_refused(damage, small, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(small if damage == "whole module" else small.state_dict(), path)
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content = b""
    elif damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[:200] = bytes(byte ^ 0xFF for byte in content[:200])
    elif damage == "text":
        content = b"not weights"
    path.write_bytes(content)
    assert message_of(from_torch_weights, path, "resnet18", IMAGES, OPTIONS).startswith(f"{path}: ")
