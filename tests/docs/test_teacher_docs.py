"""The examples of docs/teachers.md run as they are printed."""

import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from cake_jax import DataSpec, models, teachers
from cake_jax.export import export_queries, to_safetensors
from cake_jax.teachers import LinenApply, Teacher, from_torch_weights

ROOT = Path(__file__).parents[2]
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


def test_each_example_has_a_test():
    assert [title for title, examples in EXAMPLES.items() if examples] == [
        "A teacher from PyTorch, a student in Flax",
        "PyTorch weights in our architectures",
        "Published networks by name",
        "Flax NNX teachers and students",
        "Equinox teachers and students",
        "A black box",
        "Export",
    ]


def test_pytorch_teacher_example(capsys):
    pytest.importorskip("torch")
    run("A teacher from PyTorch, a student in Flax")
    accuracy, teacher_accuracy, agreement = map(float, capsys.readouterr().out.split())
    assert teacher_accuracy > 0.95
    assert accuracy > teacher_accuracy - 0.02
    assert agreement > 0.97


def test_pytorch_weights_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = DataSpec((32, 32, 3), 10)
    module = models.create("resnet18", spec)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    values = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    to_safetensors(Teacher(values, LinenApply(module), spec), "resnet18.safetensors")
    assert run("PyTorch weights in our architectures")["teacher"].num_params == 11_173_962


def test_names_example_makes_valid_calls(monkeypatch):
    """The weights cannot be downloaded in a test, so that only the calls are checked."""
    calls = []
    for function in ("from_name", "from_hub"):
        monkeypatch.setattr(
            teachers,
            function,
            lambda name, spec, function=function: calls.append((function, name, spec.num_classes)),
        )
    run("Published networks by name")
    assert calls == [
        ("from_name", "torchvision/resnet18", 1000),
        ("from_name", "timm/convnext_tiny.fb_in1k", 1000),
        ("from_hub", "timm/resnet18.a1_in1k", 1000),
    ]


def test_nnx_example():
    names = run("Flax NNX teachers and students")
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    names["trained"].eval()
    np.testing.assert_allclose(names["trained"](x), names["student"](x), rtol=1e-5, atol=1e-5)


def test_equinox_example():
    pytest.importorskip("equinox")
    names = run("Equinox teachers and students")
    assert names["teacher"].num_params == 2 * 32 + 32 + 32 * 32 + 32 + 32 * 3 + 3
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_allclose(jax.vmap(names["trained"])(x), names["student"](x), rtol=1e-5, atol=1e-5)


def test_black_box_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("A black box")
    assert capsys.readouterr().out == "1500\n"
    pixels = names["spec"].denormalize(names["x"])
    np.testing.assert_array_equal(names["logits"].argmax(-1), pixels[:, 0] > pixels[:, 1])
    assert names["logits"].max() == 110
    np.testing.assert_array_equal(names["again"], names["logits"][:500])
    assert export_queries("queries.sqlite", "queries.npz") == 1500


def test_export_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("Export")
    np.testing.assert_allclose(names["logits"], names["student"](names["x"]), rtol=1e-3, atol=1e-4)
    spec, options = names["spec"], {"blocks": (1, 1), "features": (8, 16)}
    loaded = from_torch_weights("student.safetensors", "resnet18", spec, options)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, names["student"].variables)


def test_named_functions_files_and_commands_exist():
    names = re.findall(r"`(from_\w+)`", TEXT)
    paths = re.findall(r"(?:configs|scripts|docs)/\w+\.\w+", TEXT)
    modules = re.findall(r"python -m ([\w.]+)", TEXT)
    assert names
    assert paths
    assert modules
    for name in names:
        assert hasattr(teachers, name), name
    for path in paths:
        assert (ROOT / path).exists(), path
    for module in modules:
        importlib.import_module(module)


def test_links_within_the_page_exist():
    titles = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in EXAMPLES}
    links = re.findall(r"\]\(#([\w-]+)\)", TEXT)
    assert "a-black-box" in links
    assert set(links) <= titles
