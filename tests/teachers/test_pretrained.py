"""Networks of torchvision, timm and a hub by name. The tests download nothing, so the weights are random."""

import json
import sys
import types

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import models
from cake_jax.export import to_safetensors
from cake_jax.teachers import LinenApply, Teacher, from_hub, from_name
from cake_jax.teachers.torch import pretrained
from cake_jax.teachers.torch.live import TorchApply
from cake_jax.types import DataSpec

IMAGES = DataSpec((64, 64, 3), 5)


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_known_architecture_is_converted(name):
    pytest.importorskip(name)
    teacher = from_name(f"{name}/resnet18", IMAGES, pretrained=False)
    assert teacher.apply_fn == LinenApply(models.create("resnet18", IMAGES, {"imagenet_stem": True}))


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_unknown_architecture_runs_in_pytorch(name):
    pytest.importorskip(name)
    other = {"torchvision": "mobilenet_v3_small", "timm": "mobilenetv3_small_050"}[name]
    teacher = from_name(f"{name}/{other}", IMAGES, pretrained=False)
    assert isinstance(teacher.apply_fn, TorchApply)


@pytest.mark.slow
@pytest.mark.parametrize("package_name", ["torchvision", "timm"])
def test_weights_of_all_architectures_fit(package_name):
    """The largest networks are left out."""
    library, torch = pytest.importorskip(package_name), pytest.importorskip("torch")
    known = library.models.list_models() if package_name == "torchvision" else library.list_models()
    count = 0
    for name in set(pretrained.ARCHITECTURES) & set(known) - {
        "resnet152",
        "vit_l_16",
        "vit_l_32",
        "vit_large_patch16_224",
    }:
        spec = DataSpec((384, 384, 3) if "384" in name else (224, 224, 3), 5)
        torch.manual_seed(0)
        teacher = from_name(f"{package_name}/{name}", spec, pretrained=False)
        assert isinstance(teacher.apply_fn, LinenApply), name
        count += 1
    assert count > 5


@pytest.mark.parametrize("name", ["resnet18", "keras/resnet18", "timm/"])
def test_name_without_a_package_is_refused(name):
    assert f"'{name}' is neither torchvision/<name> nor timm/<name>" in message_of(from_name, name, IMAGES)


def test_name_that_the_package_lacks_is_refused():
    pytest.importorskip("torchvision")
    message = message_of(from_name, "torchvision/resnet19", IMAGES, pretrained=False)
    assert "torchvision cannot make resnet19" in message


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: from_name("timm/resnet18", IMAGES), "timm"),
        (lambda: from_name("torchvision/resnet18", IMAGES), "torchvision"),
        (lambda: from_hub("timm/resnet18.a1_in1k", IMAGES), "huggingface_hub"),
    ],
    ids=["timm", "torchvision", "hub"],
)
def test_missing_package_is_named(monkeypatch, call, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert f"pip install {name}" in message_of(call)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The folder of a local hub, whose repositories are folders."""

    def download(repository, name):
        path = tmp_path / repository / name
        if not path.exists():
            raise OSError(f"cannot reach {repository}/{name}\nand a second line")
        return str(path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    return tmp_path


@pytest.fixture
def repository(hub, monkeypatch):
    """The folder of the repository `timm/resnet18.a1_in1k`, which holds weights but no config, and these weights."""
    options = {"blocks": (1, 1), "features": (4, 6), "imagenet_stem": True}
    monkeypatch.setitem(pretrained.ARCHITECTURES, "resnet18", ("resnet18", options))
    module, rng = models.create("resnet18", IMAGES, options), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *IMAGES.shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, size=leaf.shape).astype(leaf.dtype), shapes)
    folder = hub / "timm" / "resnet18.a1_in1k"
    folder.mkdir(parents=True)
    to_safetensors(Teacher(values, LinenApply(module), IMAGES), folder / "model.safetensors")
    return folder, values


def test_hub_gives_its_weights(repository):
    folder, values = repository
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 5}))
    jax.tree.map(np.testing.assert_array_equal, from_hub("timm/resnet18.a1_in1k", IMAGES).variables, values)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "cannot get timm/resnet18.a1_in1k: cannot reach"),
        ("{", "cannot get timm/resnet18.a1_in1k: "),
        ('{"architecture": "convnext_tiny"}', "a convnext_tiny, which cake_jax does not have; use from_name"),
    ],
)
def test_hub_without_a_usable_config_is_refused(repository, config, message):
    if config is not None:
        (repository[0] / "config.json").write_text(config)
    assert message in message_of(from_hub, "timm/resnet18.a1_in1k", IMAGES)
