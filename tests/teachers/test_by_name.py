"""Networks of torchvision, of timm and of a hub, by name; without a network, so without trained weights."""

import importlib
import json
import sys
import types

import jax
import numpy as np
import pytest

from cake_jax import CakeError, models
from cake_jax.export import to_safetensors
from cake_jax.teachers import LinenApply, by_name, from_hub, from_name, live_torch
from cake_jax.teachers.teacher import Teacher
from cake_jax.types import DataSpec

IMAGES = DataSpec((64, 64, 3), 5)


def package(name):
    try:
        return importlib.import_module(name)
    except Exception:  # missing, or built for another PyTorch
        pytest.skip(f"{name} does not import")


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_an_architecture_that_we_have_and_one_that_we_have_not(name):
    package(name)
    teacher = from_name(f"{name}/resnet18", IMAGES, pretrained=False)
    assert teacher.apply_fn == LinenApply(models.create("resnet18", IMAGES, {"imagenet_stem": True}))
    other = {"torchvision": "mobilenet_v3_small", "timm": "mobilenetv3_small_050"}[name]
    teacher = from_name(f"{name}/{other}", IMAGES, pretrained=False)
    assert isinstance(teacher.apply_fn, live_torch.TorchApply)


@pytest.mark.slow
@pytest.mark.parametrize("package_name", ["torchvision", "timm"])
def test_the_table_of_architectures(package_name):
    """Every one that the package has, at its full size: its weights fit."""
    library, torch = package(package_name), pytest.importorskip("torch")
    known = library.models.list_models() if package_name == "torchvision" else library.list_models()
    count = 0
    for name in set(by_name.ARCHITECTURES) & set(known) - {
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


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet18", "neither torchvision"), ("keras/resnet18", "neither torchvision"), ("timm/", "neither torchvision")],
)
def test_names_that_are_none(name, message):
    with pytest.raises(CakeError, match=message):
        from_name(name, IMAGES)


def test_a_name_that_the_package_does_not_know():
    package("torchvision")
    with pytest.raises(CakeError, match="torchvision cannot make resnet19") as caught:
        from_name("torchvision/resnet19", IMAGES, pretrained=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: from_name("timm/resnet18", IMAGES), "timm"),
        (lambda: from_name("torchvision/resnet18", IMAGES), "torchvision"),
        (lambda: from_hub("timm/resnet18.a1_in1k", IMAGES), "huggingface_hub"),
    ],
    ids=["timm", "torchvision", "hub"],
)
def test_without_the_package(monkeypatch, call, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CakeError, match=f"pip install {name}"):
        call()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose repositories are folders."""

    def download(repository, name):
        path = tmp_path / repository / name
        if not path.exists():
            raise OSError(f"cannot reach {repository}/{name}\nand a second line")
        return str(path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    return tmp_path


def test_a_hub(hub, monkeypatch):
    options = {"blocks": (1, 1), "features": (4, 6), "imagenet_stem": True}
    monkeypatch.setitem(by_name.ARCHITECTURES, "resnet18", ("resnet18", options))
    module, rng = models.create("resnet18", IMAGES, options), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *IMAGES.shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, size=leaf.shape).astype(leaf.dtype), shapes)
    folder = hub / "timm" / "resnet18.a1_in1k"
    folder.mkdir(parents=True)
    to_safetensors(Teacher(values, LinenApply(module), IMAGES), folder / "model.safetensors")

    with pytest.raises(CakeError, match=r"cannot get timm/resnet18\.a1_in1k: cannot reach") as caught:
        from_hub("timm/resnet18.a1_in1k", IMAGES)
    assert "\n" not in str(caught.value)
    for architecture in ("resnet18", "convnext_tiny"):
        (folder / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 5}))
        if architecture == "resnet18":
            jax.tree.map(np.testing.assert_array_equal, from_hub("timm/resnet18.a1_in1k", IMAGES).variables, values)
        else:
            with pytest.raises(CakeError, match="a convnext_tiny, which we do not have"):
                from_hub("timm/resnet18.a1_in1k", IMAGES)
    (folder / "config.json").write_text("{")
    with pytest.raises(CakeError, match="cannot get"):
        from_hub("timm/resnet18.a1_in1k", IMAGES)
