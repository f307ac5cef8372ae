"""PyTorch's own logits beside those of its weights in our architectures, and our weights back in PyTorch."""

import jax
import numpy as np
import pytest

from cake_jax import CakeError, models, train
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
def ask(teacher, x):
    return teacher(x)


def assert_same_logits(ours, theirs):
    assert np.ptp(theirs, axis=0).max() > 0.01 * np.abs(theirs).max(), "different inputs have different logits"
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in FULL)])
def test_logits_and_the_way_back(case, x):
    build, name, options = (CASES | FULL)[case]
    network = trained(build)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            assert value.abs().max() > 1e-3, "statistics have moved"
    teacher = from_torch_weights(network.state_dict(), name, IMAGES, options)
    assert_same_logits(ask(teacher, x), networks.logits(network, x))
    assert teacher.num_params == sum(parameter.numel() for parameter in network.parameters())

    naming = "torchvision" if case.startswith("torchvision") else None
    tensors = to_torch_tensors(teacher, naming)[1]
    other = build().eval()
    other.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()})
    np.testing.assert_array_equal(networks.logits(other, x), networks.logits(network, x))


def test_a_student_of_ours_in_pytorch(tmp_path, x):
    """`strict`, as a PyTorch user loads it; torchvision's network too, with its stem changed."""
    load_file = pytest.importorskip("safetensors.torch").load_file
    module = models.create("resnet18", IMAGES)
    rng = np.random.default_rng(0)
    state = train.init(jax.random.key(0), module, IMAGES, train.DISTILLATION)
    moved = jax.tree.map(lambda leaf: leaf + np.float32(rng.uniform(0, 0.1)), state.model_state)
    student = from_linen(module, {"params": state.params, **moved}, IMAGES)
    assert to_safetensors(student, tmp_path / "student.safetensors") == "torchvision"

    network = networks.ResNet((2, 2, 2, 2), (64, 128, 256, 512), 10).eval()
    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert_same_logits(ask(student, x), networks.logits(network, x))
    try:
        from torchvision.models import resnet18
    except Exception:  # missing, or built for another PyTorch
        return
    network = resnet18(num_classes=10).eval()
    network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert_same_logits(ask(student, x), networks.logits(network, x))


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
def test_files_of_torch_save(wrap, small, tmp_path, x):
    torch.save(wrap(small.state_dict()), tmp_path / "weights.pt")
    teacher = from_torch_weights(tmp_path / "weights.pt", "resnet18", IMAGES, OPTIONS)
    assert_same_logits(ask(teacher, x), networks.logits(small, x))


def test_weights_in_half_precision(small, tmp_path, x):
    from safetensors.torch import save_file

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
        import os

        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["instead", "beside"])
def test_a_malicious_file_runs_nothing(tmp_path, small, place, zipped):
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    content = Payload(trace) if place == "instead" else {**small.state_dict(), "fc.extra": Payload(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CakeError, match=r"weights\.pt") as caught:
        from_torch_weights(path, "resnet18", IMAGES, OPTIONS)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "it is malicious indeed"


def test_a_plain_pickle_with_code_runs_nothing(tmp_path):
    import pickle

    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(CakeError, match=r"weights\.pth"):
        from_torch_weights(path, "resnet18", IMAGES, OPTIONS)
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "whole module"])
def test_a_damaged_file(damage, small, tmp_path):
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
    with pytest.raises(CakeError, match=r"weights\.pt") as caught:
        from_torch_weights(path, "resnet18", IMAGES, OPTIONS)
    assert "\n" not in str(caught.value)
