"""Cosines of estimated gradients, for a linear teacher, which finite differences describe exactly."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import runs
from PIL import Image

from cake_jax import models
from cake_jax.data import DataSettings, spec_of
from cake_jax.stores import checkpoint
from cake_jax.teachers import from_linen

CONFIG = """
from cake_jax.config import default

def get_config():
    config = default()
    config.dataset.name, config.teacher.model.name = "two_moons", "logistic_regression"
    config.synthesis.num_groups, config.synthesis.num_steps = 2, 4
    return config
"""


@pytest.mark.slow
def test_all_directions_give_the_true_gradient_of_a_linear_teacher(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    spec = spec_of(DataSettings("two_moons"))
    module = models.create("logistic_regression", spec, {})
    teacher = from_linen(module, module.init(jax.random.key(0), jnp.zeros((1, 2))), spec)
    checkpoint.save_model(tmp_path / "run" / "teacher", teacher, "logistic_regression", {})
    command = [sys.executable, str(runs.ROOT / "scripts" / "gradient_estimates.py"), "--config=tiny.py", "--run=run"]
    command += ["--looks=2", "--directions=1", "--out=out.json", "--figure=figure.png"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert process.returncode == 0, process.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["looks"] == {"number": 3, "num_directions": 1}
    measured = [(row["antithetic"], row["step"], row["queries"]) for row in content["single"]]
    one_sided, antithetic = [(0, 2), (0, 3), (4, 2), (4, 3)], [(0, 3), (0, 5), (4, 3), (4, 5)]
    assert measured == [(False, *place) for place in one_sided] + [(True, *place) for place in antithetic]
    assert [row["cosine"] > 0.999 for row in content["single"]] == [False, True] * 4
    assert [row["step"] for row in content["on_the_way"]] == [0, 2, 4]
    for row in content["on_the_way"][1:]:
        assert row["added_up"] > row["alone"]
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000
