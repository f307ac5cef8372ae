"""Runs whose teacher comes from a file of weights, and the template for a user's own teacher and data."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import cake_jax
from cake_jax import CakeError, config as config_lib, dry_run, experiment, models
from cake_jax.export import to_safetensors
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.types import DataSpec

CUSTOM = Path(__file__).parents[2] / "configs" / "custom.py"
TINY = {"teacher.model.name": "mlp", "teacher.model.options": {"width": 4}, "student.model.name": "mlp"}
TINY |= {"student.epochs": 1, "synthesis.num_batches": 1, "synthesis.num_steps": 2, "synthesis.batch_size": 100}


def save_weights(path, shape, num_classes, width=4):
    """Random ones of an MLP, and the model."""
    spec = DataSpec(shape, num_classes)
    module, rng = models.create("mlp", spec, {"width": width}), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    to_safetensors(Teacher(values, LinenApply(module), spec), path)
    return values


def config_with(weights, **fields):
    config = config_lib.default()
    config.dataset.name = "two_moons"
    config.synthesis.num_groups = 2
    config.update_from_flattened_dict({**TINY, "teacher.weights": str(weights), **fields})
    return config


def test_a_run_with_a_teacher_from_a_file(tmp_path, monkeypatch):
    values = save_weights(tmp_path / "mine.safetensors", (2,), 2)
    config = config_with(tmp_path / "mine.safetensors", **{"run.student": False, "run.evaluation": False})
    assert "mine.safetensors" in dry_run.describe(config)

    def no_data(*arguments, **options):
        raise AssertionError("no data are needed")

    monkeypatch.setattr("cake_jax.data.load", no_data)
    monkeypatch.setattr("cake_jax.data.check", no_data)
    first = experiment.run(config, tmp_path / "run", config_name="mine")
    run = cake_jax.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, run.teacher.variables, values)
    assert first["teacher"]["num_params"] == run.teacher.num_params
    assert first["seconds"]["teacher"] == 0

    # The run goes on when the file has gone: its teacher is saved with it.
    (tmp_path / "mine.safetensors").unlink()
    (tmp_path / "run" / "results.json").unlink()
    again = experiment.run(config, tmp_path / "run", config_name="mine")
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher.weights": "nowhere.safetensors"}, r"teacher\.weights: nowhere\.safetensors is no file"),
        ({"teacher.model.options": {"width": 5}}, r"Dense_0\.bias has shape \(4,\)"),
        ({"teacher.model.name": "logistic_regression", "teacher.model.options": {}}, "mine.safetensors: "),
        ({"dataset.mean": (1.0, 2.0, 3.0)}, r"DataSpec\.mean: give 1 value or 2"),
    ],
)
def test_teachers_that_cannot_be(fields, message, tmp_path):
    save_weights(tmp_path / "mine.safetensors", (2,), 2)
    with pytest.raises(CakeError, match=message) as caught:
        experiment.run(config_with(tmp_path / "mine.safetensors", **fields), tmp_path / "run", config_name="mine")
    assert "\n" not in str(caught.value)


def test_a_teacher_from_two_places(tmp_path):
    save_weights(tmp_path / "mine.safetensors", (2,), 2)
    first = config_with(tmp_path / "mine.safetensors", **{"run.student": False, "run.evaluation": False})
    experiment.run(first, tmp_path / "run", config_name="mine")
    both = config_with(tmp_path / "mine.safetensors", **{"teacher.from_run": str(tmp_path / "run")})
    with pytest.raises(CakeError, match=r"teacher\.weights: .*not from both"):
        experiment.run(both, tmp_path / "other", config_name="mine")


def test_a_normalisation_of_the_user_s():
    config = config_lib.default()
    own = config_lib.resolve(config).spec
    config.dataset.mean, config.dataset.std = (0.25,), (0.5,)
    spec = config_lib.resolve(config).spec
    assert (spec.mean, spec.std) == ((0.25,), (0.5,)) != (own.mean, own.std)
    assert (spec.shape, spec.num_classes) == (own.shape, own.num_classes)
    dataset, before = (experiment._load_data(config, each) for each in (spec, own))
    np.testing.assert_allclose(spec.denormalize(dataset.test_x), own.denormalize(before.test_x), atol=1e-6)
    assert np.abs(dataset.test_x - before.test_x).max() > 0.1


@pytest.mark.parametrize("variant", ["", "smoke", "reference"])
def test_the_template(variant, tmp_path):
    spec = importlib.util.spec_from_file_location("custom", CUSTOM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = (rng.uniform(0, 120, size=(200, 8, 8, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    data = {"x_train": images[:150], "y_train": labels[:150], "x_test": images[150:], "y_test": labels[150:]}
    np.savez(tmp_path / "mine.npz", **data)
    save_weights(tmp_path / "mine.safetensors", (8, 8, 3), 2)
    config = module.get_config(variant)
    config.dataset.data_dir = str(tmp_path / "mine.npz")
    config_lib.check_fields(config)
    assert config_lib.resolve(config).spec.num_classes == 2
    if variant == "smoke":
        config.teacher.weights = str(tmp_path / "mine.safetensors")
        config.dataset.mean, config.dataset.std = (0.5,), (0.25,)
        for stage in ("teacher", "student"):
            config[stage].model.name, config[stage].model.options = "mlp", ConfigDict({"width": 4})
        results = experiment.run(config, tmp_path / "run", config_name="custom", variant="smoke")
        assert results["student"]["test_agreement"] is not None
        assert cake_jax.load(tmp_path / "run").teacher.spec.mean == (0.5,)
