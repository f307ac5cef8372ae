"""The benchmark: its measurements are complete. If PyTorch is installed, it computes the same step."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import runs

from cake_jax import models
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec

SCRIPTS = runs.ROOT / "scripts"


def benchmark(folder, *arguments):
    """Runs the script on the network `mlp`. Returns the content of its file, and its output."""
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--networks=mlp", "--precisions=float32", *arguments]
    process = subprocess.run([*command, f"--out={folder / 'out.json'}"], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "out.json").read_text()), process.stdout


@pytest.mark.slow
def test_benchmark_measures_each_part_in_each_turn(tmp_path):
    content, printed = benchmark(tmp_path, "--batch_size=40", "--repeats=2")
    (case,) = content["cases"]
    assert "benchmark.py --networks=mlp" in content["command"]
    assert (case["devices"], case["one_device"]["devices"]) == (len(os.sched_getaffinity(0)), 1)
    # Each weight is in two products, forward and back to the input, each with a multiplication and an addition.
    weights = 784 * 100 + 4 * 100 * 100 + 100 * 10
    assert case["flops_per_step"] == pytest.approx(40 * 4 * weights, rel=0.1)
    for label in ("cake float32", "lake float32", "gradient float32, 1 sets", "matrix product float32"):
        assert len(case["seconds"][label]) == 2, label
    assert "CAKE" in printed


@pytest.mark.slow
def test_memory_of_samples_is_measured(tmp_path):
    content, _ = benchmark(tmp_path, "--samples=1000")
    (case,) = content["cases"]
    assert case["samples"] == 1000
    values = 28 * 28 + 10  # inputs and logits
    assert case["stored_bytes"] > 1000 * 4 * values
    assert case["peak_memory_bytes"] > case["stored_bytes"]


@pytest.mark.slow
def test_profile_has_the_products_of_all_layers(tmp_path):
    content, printed = benchmark(tmp_path, "--profile")
    (case,) = content["cases"]
    spent = case["milliseconds_per_step"]
    for layer in range(6):
        assert spent[f"jvp(MLP)/Dense_{layer}/dot_general"] > 0
    assert spent["transpose(jvp(MLP))/Dense_0/dot_general"] > 0
    assert list(spent.values()) == sorted(spent.values(), reverse=True)
    assert "ms a step on one core" in printed


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("mlp", (28, 28, 1), {"num_hidden": 4, "width": 100}),
        ("lenet5", (28, 28, 1), {}),
        ("cnn", (28, 28, 1), {}),
        ("vit_small", (32, 32, 3), {}),
        ("resnet18", (16, 16, 3), {}),
    ],
)
def test_pytorch_computes_the_same_step(name, shape, options, monkeypatch):
    """PyTorch's networks and loss are written from the formulas, apart from those in JAX."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import torch_baseline

    spec = DataSpec(shape, 10)
    module = models.create(name, spec, options)
    teacher = from_linen(module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *shape))), spec)
    settings = SynthesisSettings(batch_size=20, weights=Weights(cls=1.0, contr=0.1, tv=1.0))
    x = jax.random.normal(jax.random.key(1), (2, 10, *shape))
    target = jnp.tile(jnp.arange(10), (2, 1))
    found = torch_baseline.disagreement(name, teacher, x, target, settings)
    assert set(found) == {"loss", "gradient"}
    assert max(found.values()) < 1e-4


@pytest.mark.parametrize("script", ["benchmark", "benchmark_training", "gradient_estimates"])
def test_a_wrong_flag_is_answered_in_one_line(script):
    if script == "benchmark_training":
        pytest.importorskip("torch")
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "--nerworks=mlp"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: Unknown command line flag 'nerworks'")
    assert len(ended.stderr.splitlines()) == 1
