"""PyTorch's names and layouts, and safetensors files. These tests do not need PyTorch."""

import json

import jax
import numpy as np
import pytest
from cake_errors import message_of
from safetensors.numpy import load_file

from cake_jax import models
from cake_jax.export import to_safetensors
from cake_jax.teachers import LinenApply, Teacher, from_function, from_torch_weights, to_torch_tensors
from cake_jax.types import DataSpec

SPEC = DataSpec((8, 8, 3), 4)
RESNET = {"blocks": (1, 1), "features": (4, 6)}
VIT = {"patch": 4, "dim": 6, "depth": 1, "heads": 2, "mlp_dim": 10}

MODELS = [
    ("resnet18", RESNET),
    ("resnet50", {**RESNET, "imagenet_stem": True}),
    ("vgg8_bn", {"layers": (1, 2), "features": (4, 6)}),
    ("vit", VIT),
    ("mlp", {"width": 5}),
    ("ideal_lenet", {"features": (2, 3)}),
    ("svm_rbf", {}),
]


def make(name, options, seed=0):
    """A model with random positive variables."""
    module, rng = models.create(name, SPEC, options), np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *SPEC.shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, size=leaf.shape).astype(leaf.dtype), shapes)
    return Teacher(values, LinenApply(module), SPEC)


def shapes_of(model, naming=None):
    return {name: tensor.shape for name, tensor in to_torch_tensors(model, naming)[1].items()}


def batch_norm(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def layer_norm(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias")}


def test_names_of_a_resnet():
    assert shapes_of(make("resnet18", RESNET)) == {
        "conv1.weight": (4, 3, 3, 3),
        **batch_norm("bn1", 4),
        "layer1.0.conv1.weight": (4, 4, 3, 3),
        **batch_norm("layer1.0.bn1", 4),
        "layer1.0.conv2.weight": (4, 4, 3, 3),
        **batch_norm("layer1.0.bn2", 4),
        "layer2.0.conv1.weight": (6, 4, 3, 3),
        **batch_norm("layer2.0.bn1", 6),
        "layer2.0.conv2.weight": (6, 6, 3, 3),
        **batch_norm("layer2.0.bn2", 6),
        "layer2.0.downsample.0.weight": (6, 4, 1, 1),
        **batch_norm("layer2.0.downsample.1", 6),
        "fc.weight": (4, 6),
        "fc.bias": (4,),
    }


def test_names_of_bottlenecks():
    shapes = shapes_of(make("resnet50", {"blocks": (2,), "features": (4,)}))
    assert {name: shape for name, shape in shapes.items() if ".conv" in name or "downsample.0" in name} == {
        "layer1.0.conv1.weight": (4, 4, 1, 1),
        "layer1.0.conv2.weight": (4, 4, 3, 3),
        "layer1.0.conv3.weight": (16, 4, 1, 1),
        "layer1.0.downsample.0.weight": (16, 4, 1, 1),
        "layer1.1.conv1.weight": (4, 16, 1, 1),
        "layer1.1.conv2.weight": (4, 4, 3, 3),
        "layer1.1.conv3.weight": (16, 4, 1, 1),
    }


def test_names_of_bottlenecks_in_sequence():
    model = make("resnet50", {"blocks": (1,), "features": (4,)})
    assert [name for name in shapes_of(model, "pytorch-cifar100") if name.endswith(".weight")] == [
        "conv1.0.weight",
        "conv1.1.weight",
        *[f"conv2_x.0.residual_function.{place}.weight" for place in (0, 1, 3, 4, 6, 7)],
        "conv2_x.0.shortcut.0.weight",
        "conv2_x.0.shortcut.1.weight",
        "fc.weight",
    ]


def test_names_of_a_vgg():
    model = make("vgg11_bn", {"features": (2, 2, 3, 3, 4), "large_head": True})
    convolutions = {0: (2, 3), 4: (2, 2), 8: (3, 2), 11: (3, 3), 15: (3, 3), 18: (3, 3), 22: (4, 3), 25: (4, 4)}
    features = {}
    for place, channels in convolutions.items():
        features[f"features.{place}.weight"] = (*channels, 3, 3)
        features[f"features.{place}.bias"] = channels[:1]
        features |= batch_norm(f"features.{place + 1}", channels[0])
    head = {"0.weight": (4096, 196), "0.bias": (4096,), "3.weight": (4096, 4096), "3.bias": (4096,)}
    head |= {"6.weight": (4, 4096), "6.bias": (4,)}
    assert shapes_of(model) == {**features, **{f"classifier.{name}": shape for name, shape in head.items()}}
    head = {"pre_logits.fc1.weight": (4096, 4, 7, 7), "pre_logits.fc1.bias": (4096,)}
    head |= {"pre_logits.fc2.weight": (4096, 4096, 1, 1), "pre_logits.fc2.bias": (4096,)}
    head |= {"head.fc.weight": (4, 4096), "head.fc.bias": (4,)}
    assert shapes_of(model, "timm") == {**features, **head}


def test_names_of_a_vit():
    model = make("vit", VIT)
    assert shapes_of(model) == {
        "cls_token": (1, 1, 6),
        "pos_embed": (1, 5, 6),
        "patch_embed.proj.weight": (6, 3, 4, 4),
        "patch_embed.proj.bias": (6,),
        **layer_norm("blocks.0.norm1", 6),
        "blocks.0.attn.qkv.weight": (18, 6),
        "blocks.0.attn.qkv.bias": (18,),
        "blocks.0.attn.proj.weight": (6, 6),
        "blocks.0.attn.proj.bias": (6,),
        **layer_norm("blocks.0.norm2", 6),
        "blocks.0.mlp.fc1.weight": (10, 6),
        "blocks.0.mlp.fc1.bias": (10,),
        "blocks.0.mlp.fc2.weight": (6, 10),
        "blocks.0.mlp.fc2.bias": (6,),
        **layer_norm("norm", 6),
        "head.weight": (4, 6),
        "head.bias": (4,),
    }
    layer = "encoder.layers.encoder_layer_0"
    assert shapes_of(model, "torchvision") == {
        "class_token": (1, 1, 6),
        "encoder.pos_embedding": (1, 5, 6),
        "conv_proj.weight": (6, 3, 4, 4),
        "conv_proj.bias": (6,),
        **layer_norm(f"{layer}.ln_1", 6),
        f"{layer}.self_attention.in_proj_weight": (18, 6),
        f"{layer}.self_attention.in_proj_bias": (18,),
        f"{layer}.self_attention.out_proj.weight": (6, 6),
        f"{layer}.self_attention.out_proj.bias": (6,),
        **layer_norm(f"{layer}.ln_2", 6),
        f"{layer}.mlp.0.weight": (10, 6),
        f"{layer}.mlp.0.bias": (10,),
        f"{layer}.mlp.3.weight": (6, 10),
        f"{layer}.mlp.3.bias": (6,),
        **layer_norm("encoder.ln", 6),
        "heads.head.weight": (4, 6),
        "heads.head.bias": (4,),
    }


def test_layouts():
    """One value of each kind of kernel has the right place in PyTorch's layout."""
    resnet = make("resnet18", RESNET)
    tensors, params = to_torch_tensors(resnet)[1], resnet.variables["params"]
    assert tensors["conv1.weight"][3, 2, 1, 0] == params["Conv_0"]["kernel"][1, 0, 2, 3]
    assert tensors["fc.weight"][3, 5] == params["Dense_0"]["kernel"][5, 3]
    vit = make("vit", VIT)
    kernel = vit.variables["params"]["Dense_0"]["kernel"]  # row, column, channel of a patch of 4 x 4 x 3
    assert to_torch_tensors(vit)[1]["patch_embed.proj.weight"][5, 2, 3, 1] == kernel[3 * 12 + 1 * 3 + 2, 5]
    vgg = make("vgg11_bn", {"features": (2, 2, 3, 3, 4), "large_head": True})
    kernel = vgg.variables["params"]["Dense_0"]["kernel"]  # row, column, channel of 7 x 7 x 4
    assert to_torch_tensors(vgg)[1]["classifier.0.weight"][9, 3 * 49 + 5 * 7 + 6] == kernel[5 * 28 + 6 * 4 + 3, 9]


@pytest.mark.parametrize(("name", "options"), MODELS, ids=[name for name, _ in MODELS])
def test_file_gives_the_same_model_back(name, options, tmp_path):
    model, other = make(name, options), make(name, options, seed=1)
    namings = {
        "resnet": ("torchvision", "flax"),
        "vgg": ("RepDistiller", "flax"),
        "vit": ("timm", "torchvision", "flax"),
        "mlp": ("Sequential", "Flatten", "fc", "flax"),
    }
    default, *others = next((found for kind, found in namings.items() if name.startswith(kind)), ("flax",))
    for naming in (None, *others):
        path = tmp_path / f"{naming}.safetensors"
        assert to_safetensors(model, path, naming=naming) == (naming or default)
        loaded = from_torch_weights(path, name, SPEC, options)
        assert loaded.apply_fn == model.apply_fn
        assert jax.tree.structure(loaded.variables) == jax.tree.structure(model.variables)
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, model.variables)
        changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), loaded.variables, other.variables)
        assert all(jax.tree.leaves(changed))


def test_file_states_its_naming(tmp_path):
    to_safetensors(make("mlp", {}), tmp_path / "mlp.safetensors", naming="flax")
    content = (tmp_path / "mlp.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"format": "pt", "naming": "flax"}
    assert header["params.Dense_0.kernel"]["shape"] == [192, 20]


def test_names_of_repdistiller_s_vgg():
    model = make("vgg13_bn", {"layers": (1, 2), "features": (2, 3)})
    assert [name for name in shapes_of(model) if name.endswith("weight")] == [
        "block0.0.weight",
        "block0.1.weight",
        "block1.0.weight",
        "block1.1.weight",
        "block1.3.weight",
        "block1.4.weight",
        "classifier.weight",
    ]


def test_unknown_naming_is_refused():
    assert "no naming 'timm', only flax" in message_of(to_torch_tensors, make("svm_linear", {}), "timm")


def test_function_has_no_weights_to_export():
    function = from_function(lambda x: x[:, 0, 0, :1] * np.ones(4), SPEC)
    assert "no weights" in message_of(to_torch_tensors, function)


def test_file_of_another_ending_is_refused(tmp_path):
    assert "must end in .safetensors" in message_of(to_safetensors, make("mlp", {}), tmp_path / "mlp.pt")
    assert not list(tmp_path.iterdir())


def test_file_holds_float32_only(tmp_path):
    to_safetensors(make("resnet18", RESNET), tmp_path / "student.safetensors")
    assert {tensor.dtype for tensor in load_file(tmp_path / "student.safetensors").values()} == {np.dtype(np.float32)}
