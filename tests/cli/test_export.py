"""The export of models as weights and as StableHLO programs, in Python and by the command."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import export, models
from cake_jax.stores import checkpoint
from cake_jax.teachers import LinenApply, Teacher, from_function, from_torch_weights
from cake_jax.types import DataSpec

ROOT = Path(__file__).parents[2]
IMAGES = DataSpec((8, 8, 1), 3)
DIGITS = DataSpec((28, 28, 1), 10)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

# Runs a program on the batches of a file. Neither cake_jax nor flax can be imported.
PROGRAM = """
import sys
sys.modules["cake_jax"] = sys.modules["flax"] = None
import jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
batches = np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: program.call(batches[name]) for name in batches})
"""


def make(name, options=None, spec=IMAGES):
    module, rng = models.create(name, spec, options), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *spec.shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.uniform(-0.1, 0.3, size=leaf.shape).astype(leaf.dtype) ** 2, shapes)
    return Teacher(values, LinenApply(module), spec)


def load_program(path):
    return jax.export.deserialize(bytearray(path.read_bytes()))


def test_program_runs_without_this_package(tmp_path):
    model = make("resnet18", {"blocks": (1, 1), "features": (4, 6)})
    export.to_stablehlo(model, tmp_path / "student.stablehlo")
    rng = np.random.default_rng(0)
    batches = {str(n): rng.normal(size=(n, 8, 8, 1)).astype(np.float32) for n in (1, 5)}
    np.savez(tmp_path / "x.npz", **batches)
    files = [str(tmp_path / name) for name in ("student.stablehlo", "x.npz", "logits.npz")]
    command = [sys.executable, "-c", PROGRAM, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**ENVIRONMENT, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / "logits.npz")
    for name, x in batches.items():
        np.testing.assert_allclose(logits[name], model(x), rtol=1e-4, atol=1e-6)
        assert logits[name].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "spec", "options"),
    [
        ("mlp", IMAGES, {}),
        ("lenet5_half", DIGITS, {}),
        ("cnn_tiny", DIGITS, {}),
        ("ideal_lenet", DIGITS, {}),
        ("wrn_16_1", IMAGES, {"depth": 10}),
        ("vgg8_bn", IMAGES, {"layers": (1, 1), "features": (4, 6)}),
        ("vit", IMAGES, {"patch": 4, "dim": 6, "depth": 1, "heads": 2, "mlp_dim": 8}),
        ("vit_small", IMAGES, {"dim": 6, "depth": 1, "heads": 2, "head_dim": 4, "mlp_dim": 8}),
        ("svm_rbf", IMAGES, {}),
    ],
)
def test_programs_of_other_kinds(name, spec, options, tmp_path):
    model = make(name, options, spec)
    export.to_stablehlo(model, tmp_path / "model.stablehlo")
    program = load_program(tmp_path / "model.stablehlo")
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    x = np.random.default_rng(1).normal(size=(3, *spec.shape)).astype(np.float32)
    expected = np.asarray(jax.jit(lambda model, x: model(x))(model, x))
    np.testing.assert_allclose(program.call(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_program_in_a_file_of_another_ending_is_refused(tmp_path):
    assert "must end in .stablehlo" in message_of(export.to_stablehlo, make("mlp"), tmp_path / "mlp.bin")
    assert not list(tmp_path.iterdir())


def test_program_of_a_fixed_batch_size_is_refused(tmp_path):
    def two_inputs_only(x):
        return x.reshape(2, -1)[:, :3] if isinstance(len(x), int) else x.reshape(2, 64)[:, :3]

    model = from_function(two_inputs_only, IMAGES)
    assert "cannot be written as StableHLO" in message_of(export.to_stablehlo, model, tmp_path / "f.stablehlo")
    assert not list(tmp_path.iterdir())


def command(*arguments):
    run = [sys.executable, "-m", "cake_jax.export", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def test_command_exports_a_student(tmp_path):
    options = {"blocks": (1,), "features": (4,)}
    model = make("resnet18", options)
    checkpoint.save_model(tmp_path / "student", model, "resnet18", options)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
    done = command(tmp_path / "student", tmp_path / "student.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "torchvision" in done.stdout
    loaded = from_torch_weights(tmp_path / "student.safetensors", "resnet18", IMAGES, options)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, model.variables)
    assert "program" in export.main(str(tmp_path / "student"), str(tmp_path / "student.stablehlo"))
    program = load_program(tmp_path / "student.stablehlo")
    np.testing.assert_allclose(program.call(x), checkpoint.load_model(tmp_path / "student")(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("student.onnx", "student.onnx: the file name must end in .npz"),
        ("student.safetensors", "no model here"),
        ("student.stablehlo", "no model here"),
        ("student.npz", "no sample store"),
    ],
)
def test_command_refuses_other_endings_and_empty_folders(file, message, tmp_path):
    assert message in message_of(export.main, str(tmp_path), str(tmp_path / file))
    assert not list(tmp_path.iterdir())


def test_command_prints_an_error_of_one_line(tmp_path):
    done = command(tmp_path / "nowhere", tmp_path / "student.safetensors")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
