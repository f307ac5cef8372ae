"""The yardstick: what it times is there, and PyTorch, where it is installed, computes the same step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cake_jax import models
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
def test_a_small_benchmark(tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--networks=mlp", "--precisions=float32", "--batch_size=40", "--repeats=2", f"--out={out}"]
    process = subprocess.run(
        [sys.executable, str(SCRIPTS / "benchmark.py"), *arguments], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    content = json.loads(out.read_text())
    (case,) = content["cases"]
    assert "benchmark.py --networks=mlp" in content["command"]
    assert (case["devices"], case["one_device"]["devices"]) == (len(os.sched_getaffinity(0)), 1)
    # Two products a layer, forward and back to the input, and two operations a weight: 4 times the 119,010 weights.
    weights = 784 * 100 + 4 * 100 * 100 + 100 * 10
    assert case["flops_per_step"] == pytest.approx(40 * 4 * weights, rel=0.1)
    for label in ("cake float32", "lake float32", "gradient float32, 1 sets", "matrix product float32"):
        assert len(case["seconds"][label]) == 2, label
    assert all(t > 0 for t in case["seconds"]["gradient float32, 1 sets"])
    assert "CAKE" in process.stdout


@pytest.mark.slow
def test_a_small_profile(tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--networks=mlp", "--precisions=float32", "--batch_size=500", "--profile", f"--out={out}"]
    process = subprocess.run(
        [sys.executable, str(SCRIPTS / "benchmark.py"), *arguments], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    (case,) = json.loads(out.read_text())["cases"]
    spent = case["milliseconds_per_step"]
    # The first layer is three quarters of the network, forward and back.
    layers = [sum(t for place, t in spent.items() if f"Dense_{number}/" in place) for number in range(6)]
    assert layers[0] > max(layers[1:])
    assert 0.1 < sum(spent.values()) < 1000


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
    """Another implementation of every network and of the whole loss, in another framework."""
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
