"""The examples of docs/teachers.md, as a reader copies them."""

import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from cake_jax import DataSpec, models, teachers
from cake_jax.export import export_queries, to_safetensors
from cake_jax.teachers import LinenApply, Teacher, from_torch_weights

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "teachers.md").read_text()
EXAMPLES = {
    title: example
    for section in TEXT.split("\n## ")[1:]
    for title, example in [(section.splitlines()[0], re.findall(r"```python\n(.*?)```", section, re.DOTALL))]
}


def run(title):
    (example,) = EXAMPLES[title]
    namespace = {}
    exec(compile(example, title, "exec"), namespace)
    return namespace


def test_every_example_is_tried():
    assert [title for title, examples in EXAMPLES.items() if examples] == [
        "A network that PyTorch trained, and a student in Flax",
        "Weights of PyTorch in our architectures",
        "By name",
        "Flax NNX, as teacher and as student",
        "Equinox",
        "A black box",
        "Out again",
    ]


def test_a_network_that_pytorch_trained(capsys):
    pytest.importorskip("torch")
    run("A network that PyTorch trained, and a student in Flax")
    accuracy, of_teacher, agreement = map(float, capsys.readouterr().out.split())
    assert of_teacher > 0.95
    assert accuracy > 0.9
    assert agreement > 0.9


def test_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = DataSpec((32, 32, 3), 10)
    module = models.create("resnet18", spec)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    values = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    to_safetensors(Teacher(values, LinenApply(module), spec), "resnet18.safetensors")
    assert run("Weights of PyTorch in our architectures")["teacher"].num_params == 11_173_962


def test_by_name_names_what_is_there(monkeypatch):
    """No weights can be had here: the calls alone."""
    asked = []
    for function in ("from_name", "from_hub"):
        monkeypatch.setattr(teachers, function, lambda name, spec: asked.append((name, spec.num_classes)))
    run("By name")
    assert asked == [
        (name, 1000) for name in ("torchvision/resnet18", "timm/convnext_tiny.fb_in1k", "timm/resnet18.a1_in1k")
    ]


def test_nnx():
    found = run("Flax NNX, as teacher and as student")
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    found["trained"].eval()
    np.testing.assert_allclose(found["trained"](x), found["student"](x), rtol=1e-5, atol=1e-5)


def test_equinox():
    pytest.importorskip("equinox")
    assert run("Equinox")["teacher"].num_params == 2 * 32 + 32 + 32 * 32 + 32 + 32 * 3 + 3


def test_a_black_box(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = run("A black box")
    assert capsys.readouterr().out == "1500\n"
    pixels = found["spec"].denormalize(found["x"])
    np.testing.assert_array_equal(found["logits"].argmax(-1), pixels[:, 0] > pixels[:, 1])
    assert found["logits"].max() == 110
    np.testing.assert_array_equal(found["again"], found["logits"][:500])
    assert export_queries("queries.sqlite", "queries.npz") == 1500


def test_out_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run("Out again")
    np.testing.assert_allclose(found["logits"], found["student"](found["x"]), rtol=1e-3, atol=1e-4)
    spec, options = found["spec"], {"blocks": (1, 1), "features": (8, 16)}
    loaded = from_torch_weights("student.safetensors", "resnet18", spec, options)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, found["student"].variables)


def test_functions_and_files_that_it_names_are_there():
    for name in re.findall(r"`(from_\w+)`", TEXT):
        assert hasattr(teachers, name), name
    for path in re.findall(r"(?:configs|scripts|docs)/\w+\.\w+", TEXT):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        importlib.import_module(module)
