"""The same weights have the same logits in PyTorch and in our architectures, in both directions."""

import os
import pickle
import re

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
RESNET = ("resnet18", IMAGES, OPTIONS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"net": state, "acc": 93.1, "epoch": 199},
        lambda state: {"model": {"state_dict": state}, "optimizer": {"lr": 0.1}},
        lambda state: {"ema": {f"backbone.1.{name}": tensor for name, tensor in state.items()}},
        lambda state: {
            "n_averaged": torch.tensor(7),
            **{f"module.{name}": tensor for name, tensor in state.items()},
        },
        lambda state: {"weights of the best epoch": state},
        lambda state: {
            name: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in state.items()
        },
    ],
    ids=[
        "plain",
        "wrapped",
        "DataParallel",
        "Lightning",
        "compiled",
        "pytorch-cifar",
        "twice",
        "average",
        "AveragedModel",
        "any key",
        "parameters",
    ],
)
def test_files_of_torch_save_are_read(wrap, small, tmp_path, x):
    torch.save(wrap(small.state_dict()), tmp_path / "weights.pt")
    teacher = from_torch_weights(tmp_path / "weights.pt", "resnet18", IMAGES, OPTIONS)
    assert_same_logits(call(teacher, x), networks.logits(small, x))


def renamed(state, *changes):
    for old, new in changes:
        state = {re.sub(old, new, name): tensor for name, tensor in state.items()}
    return state


LAYOUTS = {
    "pytorch-cifar": [("downsample", "shortcut"), (r"^fc", "linear")],
    "pytorch-cifar100": [
        (r"^conv1", "conv1.0"),
        (r"^bn1", "conv1.1"),
        (r"layer(\d)\.(\d)\.conv1", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.0"),
        (r"layer(\d)\.(\d)\.bn1", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.1"),
        (r"layer(\d)\.(\d)\.conv2", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.3"),
        (r"layer(\d)\.(\d)\.bn2", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.4"),
        (r"layer(\d)\.(\d)\.downsample", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.shortcut"),
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_common_repositories_are_read_and_written(layout, small, x):
    state = renamed(small.state_dict(), *LAYOUTS[layout])
    assert not set(state) & {"layer2.0.downsample.0.weight"}
    teacher = from_torch_weights({"net": {f"module.{name}": tensor for name, tensor in state.items()}}, *RESNET)
    assert_same_logits(call(teacher, x), networks.logits(small, x))
    written = to_torch_tensors(teacher, layout)[1]
    assert set(written) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, state[name].numpy())


def test_an_object_in_a_file_is_named_in_one_plain_line(small, tmp_path):
    torch.save({"net": small.state_dict(), "args": Arguments()}, tmp_path / "net.pt")
    message = message_of(from_torch_weights, tmp_path / "net.pt", *RESNET)
    assert message.startswith(f"{tmp_path / 'net.pt'}: holds an object of ")
    assert "test_torch_weights.Arguments, and such an object could run code; save the weights alone" in message
    assert "\x1b" not in message
    assert "\n" not in message


class Arguments:
    """What a training script keeps beside its weights."""


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
