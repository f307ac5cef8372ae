"""Weights that do not fit an architecture, and checkpoints around weights. These tests do not need PyTorch."""

import sys

import jax
import numpy as np
import pytest
from cake_errors import message_of
from safetensors.numpy import save_file

from cake_jax import models
from cake_jax.teachers import from_linen, from_torch_weights, to_torch_tensors
from cake_jax.types import DataSpec

SPEC = DataSpec((8, 8, 3), 4)
RESNET = {"blocks": (1, 1), "features": (4, 6)}


def tensors_of(name, options):
    """Random positive weights of an architecture, with PyTorch's names."""
    module, rng = models.create(name, SPEC, options), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *SPEC.shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, size=leaf.shape).astype(leaf.dtype), shapes)
    return to_torch_tensors(from_linen(module, values, SPEC))[1]


@pytest.fixture
def tensors():
    return {**tensors_of("resnet18", RESNET), "bn1.num_batches_tracked": np.asarray(7)}


def missing(tensors):
    del tensors["layer2.0.bn1.running_var"]


def unexpected(tensors):
    tensors["layer3.0.conv1.weight"] = np.zeros((2, 3), np.float32)


def misshaped(tensors):
    tensors["conv1.weight"] = np.zeros((4, 3, 5, 5), np.float32)


def other_classes(tensors):
    tensors["fc.weight"] = np.zeros((1000, 6), np.float32)


def not_finite(tensors):
    tensors["conv1.weight"] = np.full((4, 3, 3, 3), np.nan, np.float32)


def no_tensor(tensors):
    tensors["fc.bias"] = "a string"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, "layer2.0.bn1.running_var is missing"),
        (unexpected, "layer3.0.conv1.weight (2, 3) is not in resnet18"),
        (misshaped, "conv1.weight has shape (4, 3, 5, 5), but resnet18 with these options has (4, 3, 3, 3)"),
        (other_classes, "fc.weight has shape (1000, 6), but resnet18 with these options has (4, 6)"),
        (not_finite, "not finite"),
        (no_tensor, "weights: fc.bias is not a tensor of numbers: could not convert string to float: 'a string'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tensors, change, message):
    from_torch_weights(tensors, "resnet18", SPEC, RESNET)
    change(tensors)
    assert message in message_of(from_torch_weights, tensors, "resnet18", SPEC, RESNET)


def test_names_that_do_not_fit_are_shown_beside_those_of_the_nearest_layout(tensors):
    # The five names of a shortcut fit, once the prefix is removed.
    other = {f"stem.{name.replace('conv', 'convolution')}": tensor for name, tensor in tensors.items()}
    other = {name.replace("bn", "norm").replace("fc", "head"): tensor for name, tensor in other.items()}
    assert message_of(from_torch_weights, other, "resnet18", SPEC, RESNET) == (
        "weights: these are not the weights of resnet18 with these options; of its nearest layout, torchvision, 27 "
        "of 32 names are missing (conv1.weight, bn1.weight, bn1.bias), and the file has 27 others "
        "(convolution1.weight, norm1.weight, norm1.bias); any PyTorch network is a teacher in Python, by "
        "cake_jax.teachers.from_torch"
    )


def test_a_smaller_network_has_no_other_names(tensors):
    message = message_of(from_torch_weights, tensors, "resnet18", SPEC, {"blocks": (2, 1), "features": (4, 6)})
    words = (
        "10 of 42 names are missing (layer1.1.conv1.weight, layer1.1.bn1.weight, layer1.1.bn1.bias), and the file has "
        "no others; any PyTorch network"
    )
    assert words in message


VGG = {"layers": (1, 2), "features": (4, 6)}


@pytest.mark.parametrize(
    ("name", "given", "right", "advice"),
    [
        ("resnet18", RESNET, {"shortcut": "padding"}, "shortcut to padding"),
        ("resnet18", {**RESNET, "shortcut": "padding"}, {"shortcut": "projection"}, "shortcut to projection"),
        ("resnet18", RESNET, {"imagenet_stem": True}, "imagenet_stem to True"),
        ("resnet18", {**RESNET, "imagenet_stem": True}, {"imagenet_stem": False}, "imagenet_stem to False"),
        (
            "resnet18",
            RESNET,
            {"imagenet_stem": True, "shortcut": "padding"},
            "imagenet_stem to True and shortcut to padding",
        ),
        # The shapes are the same, but not the pools: without an error, the logits would be wrong.
        ("vgg11_bn", VGG, {"smallest": 4}, "smallest to 4"),
        ("vgg13_bn", VGG, {"smallest": 1}, "smallest to 1"),
        ("vgg13_bn", VGG, {"large_head": True}, "large_head to True"),
    ],
)
def test_options_with_which_the_weights_fit_are_named(name, given, right, advice):
    weights = tensors_of(name, {**given, **right})
    message = message_of(from_torch_weights, weights, name, SPEC, given)
    assert message == f"weights: the tensors fit {name} with other options; set the model's option {advice}"
    from_torch_weights(weights, name, SPEC, {**given, **right})


def test_a_prefix_before_most_names_is_removed_whichever_name_lacks_it(tensors):
    for bare in tensors:
        weights = {name if name == bare else f"encoder.0.{name}": tensor for name, tensor in tensors.items()}
        loaded = from_torch_weights(weights, "resnet18", SPEC, RESNET)
        np.testing.assert_array_equal(loaded.variables["params"]["Dense_0"]["bias"], tensors["fc.bias"])


def test_a_tensor_with_and_without_the_prefix_is_refused(tensors):
    weights = {f"module.{name}": tensor for name, tensor in tensors.items()}
    weights["fc.bias"] = 1 + tensors["fc.bias"]
    message = message_of(from_torch_weights, weights, "resnet18", SPEC, RESNET)
    assert message == "weights: module.fc.bias (4,) is not in resnet18 with these options"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"ema": {"module": state, "decay": 0.999}, "epoch": 3},
        lambda state: {"ema": state, "model": None},
        lambda state: {"module": state, "global_steps": 100},
        lambda state: {"params": state, "optimizer": {"state": {}, "param_groups": []}, "best": np.float32(0.9)},
    ],
    ids=["average of a module", "average alone", "other key", "beside an optimizer"],
)
def test_weights_are_found_in_a_checkpoint(wrap, tensors):
    loaded = from_torch_weights(wrap(tensors), "resnet18", SPEC, RESNET)
    np.testing.assert_array_equal(loaded.variables["params"]["Dense_0"]["bias"], tensors["fc.bias"])


def test_the_model_comes_before_its_average(tensors):
    average = {**tensors, "fc.bias": 1 + tensors["fc.bias"]}
    loaded = from_torch_weights({"ema": average, "model": tensors}, "resnet18", SPEC, RESNET)
    np.testing.assert_array_equal(loaded.variables["params"]["Dense_0"]["bias"], tensors["fc.bias"])


def test_several_parts_with_weights_are_named(tensors):
    assert message_of(from_torch_weights, {"old": tensors, "new": tensors}, "resnet18", SPEC, RESNET) == (
        "weights: none of its parts (old, new) is clearly the state_dict; save the part with the weights alone"
    )


@pytest.mark.parametrize("weights", [{}, {"state_dict": {}}], ids=str)
def test_empty_weights_are_refused(weights):
    message = message_of(from_torch_weights, weights, "resnet18", SPEC, RESNET)
    assert message == "weights: holds an empty dict instead of a state_dict, a dict from names to tensors"


def test_names_that_are_no_strings_are_refused():
    message = message_of(from_torch_weights, {0: np.zeros(3), 1: np.zeros(2)}, "resnet18", SPEC, RESNET)
    assert "and the file has 2 others (0, 1)" in message


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "header", "length", "pickle", "folder"])
def test_damaged_file_is_refused(damage, tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    content = path.read_bytes()
    broken = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "header": content[:8] + b"x" * 100 + content[108:],
        "length": (2**62).to_bytes(8, "little") + content[8:],
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage in broken:
        path.write_bytes(broken[damage])
    message = message_of(from_torch_weights, path, "resnet18", SPEC, RESNET)
    assert message.startswith(f"{path}: ")
    assert ("no such file" in message) == (damage == "missing")


def test_pytorch_file_without_pytorch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"anything")
    assert "pip install torch" in message_of(from_torch_weights, tmp_path / "weights.pt", "resnet18", SPEC, RESNET)
    assert "no.pt: no such file" in message_of(from_torch_weights, tmp_path / "no.pt", "resnet18", SPEC, RESNET)
