"""The examples of CONTRIBUTING.md, as additions from outside the package, in runs that use them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cake_jax import DataSpec, augment, data, evaluation, methods, models, report
from cake_jax.config import default, resolve
from cake_jax.run import experiment
from cake_jax.starts import STARTS
from cake_jax.stores import metrics
from cake_jax.stores.samples import SampleStore
from cake_jax.synthesis.priors import PRIORS

REGISTRIES: dict[str, dict[str, Any]] = {
    "method": methods.METHODS,
    "model": models.MODELS,
    "data set": data.SOURCES,
    "data prior": PRIORS,
    "start": STARTS,
    "augmentation": augment.AUGMENTATIONS,
    "figure": report.FIGURES,
    "evaluator": evaluation.EVALUATORS,
    "metrics writer": metrics.WRITERS,
}
PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"^## An? ([a-z ]+)\n.*?```python\n(.*?)```", PAGE, re.M | re.S))


@pytest.fixture(autouse=True)
def added() -> Iterator[dict[str, set[str]]]:
    """Runs every example, gives the names that each registry gained, and takes them out again."""
    before = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    try:
        for kind, code in EXAMPLES.items():
            exec(compile(code, f"CONTRIBUTING.md, {kind}", "exec"), {})
        yield {kind: set(registry) - set(before[kind]) for kind, registry in REGISTRIES.items()}
    finally:
        for kind, registry in REGISTRIES.items():
            registry.clear()
            registry.update(before[kind])


def config_of_additions(method: str) -> ConfigDict:
    """A run of a second on the added data set, with the added model as student."""
    config = default()
    config.method = method
    config.dataset.name = "stripe"
    config.teacher.epochs = config.student.epochs = 2
    config.student.model.name = "tiny"
    config.synthesis.num_batches = 2
    config.synthesis.batch_size = 20
    config.synthesis.num_groups = 2
    config.synthesis.num_steps = 2
    config.log.lines = True
    return config


def test_each_example_adds_one_name_to_the_registry_of_its_kind(added: dict[str, set[str]]) -> None:
    assert set(EXAMPLES) == set(REGISTRIES)
    assert {kind: len(names) for kind, names in added.items()} == dict.fromkeys(REGISTRIES, 1)


def test_a_run_uses_the_added_method_model_data_set_figure_evaluator_and_writer(tmp_path: Path) -> None:
    config = config_of_additions("uniform")
    config.methods.uniform.width = 0.5
    results = experiment.run(resolve(config), tmp_path, config_name="additions")
    samples = SampleStore(tmp_path / "samples").select()
    assert np.abs(samples.x).max() <= 0.5 < 2 * np.abs(samples.x).max()
    assert results["method"] == "uniform"
    assert results["student"]["num_params"] == 2 * 16 + 16 + 16 * 2 + 2
    assert 0.5 <= results["student"]["test_confidence"] <= 1
    assert (
        results["student"]["test_confidence"]
        == json.loads((tmp_path / "results.json").read_text())["student"]["test_confidence"]
    )
    assert (tmp_path / "figures" / "confidence.png").exists()
    lines = (tmp_path / "lines.txt").read_text().splitlines()
    figures = len(list(tmp_path.rglob("*.png")))
    expected = ["teacher"] * 2 + ["synthesis"] * 2 + ["student"] * 2 + ["evaluation"] + ["figure"] * figures
    assert [line.split()[0] for line in lines] == expected
    assert f"figure confidence: {tmp_path / 'figures' / 'confidence.png'}" in lines


def test_a_run_uses_the_added_data_prior_and_start(tmp_path: Path) -> None:
    spread = {}
    for weight in (0.0, 5.0):
        config = config_of_additions("cake")
        config.synthesis.start = "wide"
        config.synthesis.schedule = "constant"
        config.synthesis.step_size = 1.0
        config.synthesis.weights.cls = config.synthesis.weights.contr = 0.0
        config.synthesis.weights.distance = weight
        experiment.run(resolve(config), tmp_path / str(weight), config_name="additions")
        spread[weight] = float(SampleStore(tmp_path / str(weight) / "samples").select().x.std())
    assert spread[0.0] == pytest.approx(2.0, rel=0.25)  # the start has twice the deviation of a normal one
    assert spread[5.0] < 0.8 * spread[0.0]


def test_the_added_augmentation_turns_half_of_the_images() -> None:
    spec = DataSpec(shape=(4, 4, 1), num_classes=2)
    augment.check(("upside_down",), spec, "teacher.augment")
    image = np.arange(16.0, dtype=np.float32).reshape(4, 4, 1)
    keys = jax.random.split(jax.random.key(0), 64)
    images = np.asarray(augment.augment(keys, np.stack([image] * 64), ("upside_down",), spec))
    turned = (images == image[::-1]).all(axis=(1, 2, 3))
    assert (turned | (images == image).all(axis=(1, 2, 3))).all()
    assert 16 < turned.sum() < 48
