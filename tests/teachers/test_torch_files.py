"""Files that PyTorch wrote: checkpoints as training scripts save them, files with code, and damaged files."""

import os
import pickle

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax.teachers import from_torch_weights
from cake_jax.types import DataSpec

torch = pytest.importorskip("torch")
networks = pytest.importorskip("torch_networks")

X = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
RESNET = ("resnet18", DataSpec((32, 32, 3), 10), {"blocks": (1, 1), "features": (8, 16)})


@pytest.fixture(scope="module")
def small():
    return networks.trained(lambda: networks.ResNet((1, 1), (8, 16), 10))


@jax.jit
def call(teacher, x):
    return teacher(x)


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
def test_files_of_torch_save_are_read(wrap, small, tmp_path):
    torch.save(wrap(small.state_dict()), tmp_path / "weights.pt")
    teacher = from_torch_weights(tmp_path / "weights.pt", *RESNET)
    networks.assert_same_logits(call(teacher, X), networks.logits(small, X))


def test_an_object_in_a_file_is_named_in_one_plain_line(small, tmp_path):
    torch.save({"net": small.state_dict(), "args": Arguments()}, tmp_path / "net.pt")
    message = message_of(from_torch_weights, tmp_path / "net.pt", *RESNET)
    assert message.startswith(f"{tmp_path / 'net.pt'}: holds an object of ")
    assert "test_torch_files.Arguments, and such an object could run code; save the weights alone" in message
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
            teacher = from_torch_weights(tmp_path / file, *RESNET)
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
    assert message_of(from_torch_weights, path, *RESNET).startswith(f"{path}: ")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "loading the file without protection does run code"


@pytest.mark.parametrize(("version", "is_safe"), [("2.5.1", False), ("1.13.0+cu117", False), ("2.6.0", True)])
def test_a_version_of_pytorch_that_may_run_code_reads_no_file(version, is_safe, small, tmp_path, monkeypatch):
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr(torch, "__version__", version)
    if is_safe:
        from_torch_weights(tmp_path / "weights.pt", *RESNET)
        return
    message = message_of(from_torch_weights, tmp_path / "weights.pt", *RESNET)
    assert f"PyTorch {version} may run code from such a file (CVE-2025-32434); install 2.6 or later" in message


def test_plain_pickle_runs_no_code(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert message_of(from_torch_weights, path, *RESNET).startswith(f"{path}: ")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "loading the file without protection does run code"


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_other_files_of_pytorch_are_refused_in_a_line_of_their_own(small, tmp_path):
    """PyTorch's own message recommends `weights_only=False`, which runs code."""
    torch.jit.save(torch.jit.trace(small, torch.zeros(1, 3, 32, 32)), str(tmp_path / "script.pt"))
    assert message_of(from_torch_weights, tmp_path / "script.pt", *RESNET) == (
        f"{tmp_path / 'script.pt'}: a TorchScript archive, which holds code; save the weights alone: "
        "torch.save(network.state_dict(), 'weights.pt')"
    )
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"fc.bias": [1.0]}))
    message = message_of(from_torch_weights, tmp_path / "plain.pt", *RESNET)
    assert message == f"{tmp_path / 'plain.pt'}: damaged, or not a file that torch.save wrote"


@pytest.mark.parametrize(
    ("content", "found"),
    [(torch.ones(3), "a value of type Tensor"), ([], "a value of type list"), ({"net": {}}, "an empty dict")],
    ids=["tensor", "list", "empty"],
)
def test_a_file_without_a_state_dict_says_what_it_holds(content, found, tmp_path):
    torch.save(content, tmp_path / "net.pt")
    message = message_of(from_torch_weights, tmp_path / "net.pt", *RESNET)
    assert message == f"{tmp_path / 'net.pt'}: holds {found} instead of a state_dict, a dict from names to tensors"


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
    assert message_of(from_torch_weights, path, *RESNET).startswith(f"{path}: ")
