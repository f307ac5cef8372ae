"""Files of weights that somebody made to do harm."""

import json
import os
import struct
import sys
import zipfile

import numpy as np
import pytest
from cake_errors import message_of
from limits import little_memory, little_time

from cake_jax import files, teachers
from cake_jax.teachers import from_torch_weights
from cake_jax.teachers.torch import weight_files
from cake_jax.types import DataSpec

LINEAR = ("logistic_regression", DataSpec((2,), 3))


def safetensors_file(path, header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)},
        {"a": tensor([-2], 0, 8)},
        {"a": tensor([10**12], 0, 4 * 10**12)},
        {"a": tensor([2**62, 4], 0, 8)},
        {"a": tensor([2], 0, 8, dtype="__import__('os')")},
        {"a": tensor([3], 0, 12), "__metadata__": {"x": [1]}},
        b"[" * 100_000,
        b'{"a": NaN}',
    ],
    ids=["overlapping", "negative", "huge", "overflowing", "unknown type", "odd metadata", "nested", "no JSON"],
)
def test_a_lying_header_of_safetensors_is_refused(header, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors_file(path, header, bytes(12))
    with little_memory():
        assert message_of(weight_files.read, path).startswith(f"{path}: damaged")


@pytest.mark.parametrize("length", [0, 2**40, 2**64 - 1])
def test_a_header_of_absurd_length_is_refused(length, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with little_memory():
        assert message_of(weight_files.read, path).startswith(f"{path}: damaged")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind, name, tmp_path):
    path = tmp_path / name
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with little_time(), little_memory():
        assert message_of(weight_files.read, path) == f"{path}: not a regular file"


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    checkpoint = {}
    checkpoint["state_dict"] = checkpoint
    torch.save(checkpoint, tmp_path / "weights.pt")
    with little_time():
        message = message_of(weight_files.read, tmp_path / "weights.pt")
    assert message == f"{tmp_path / 'weights.pt'}: more than 10 dicts lie in one another; {weight_files._SAVE}"


def test_a_tensor_that_claims_more_values_than_the_file_holds_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1, dtype=torch.float16).expand(10**10)}, tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").stat().st_size < 10_000
    with little_memory():
        message = message_of(weight_files.read, tmp_path / "weights.pt")
    assert message.endswith(": a is not a tensor of numbers: it has 10,000,000,000 values, of which 1 are stored")


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_UNPACKED_BYTES", 2**24)
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(4)}, tmp_path / "small.pt")
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(tmp_path / "small.pt") as small, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in small.namelist():
            if not name.endswith("data/0"):
                bomb.writestr(name, small.read(name))
        with bomb.open("small/data/0", "w", force_zip64=True) as file:
            file.write(bytes(10**8))
    assert path.stat().st_size < 2**21
    message = message_of(weight_files.read, path)
    assert message.startswith(f"{path}: unpacks to 0.1 GB")
    assert message.endswith("100 times its size; if you trust it, save it without compression")


def test_the_config_of_a_hub_repository_is_not_trusted(tmp_path, monkeypatch):
    class Hub:
        @staticmethod
        def hf_hub_download(repository, name):
            return str(tmp_path / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    for text in ('{"architecture": ["resnet18"]}', "[]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        message = message_of(teachers.from_hub, "stranger/resnet", DataSpec((32, 32, 3), 10))
        assert message.startswith("from_hub: ")
        assert "stranger/resnet" in message


def test_values_that_are_not_finite_are_refused(tmp_path):
    from safetensors.numpy import save_file

    weights = {"params.Dense_0.kernel": np.full((2, 3), np.nan, np.float32), "params.Dense_0.bias": np.zeros(3, "f4")}
    save_file(weights, tmp_path / "weights.safetensors")
    assert "not finite" in message_of(from_torch_weights, tmp_path / "weights.safetensors", *LINEAR)
