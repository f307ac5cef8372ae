"""Runs with a teacher from a file of weights, and the template `configs/custom.py`."""

import importlib.util

import jax
import numpy as np
import pytest
import runs
from cake_errors import message_of
from ml_collections import ConfigDict

import cake_jax
from cake_jax import config as config_lib, data, models
from cake_jax.export import to_safetensors
from cake_jax.run import dry_run
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.types import CakeWarning, DataSpec

CUSTOM = runs.ROOT / "configs" / "custom.py"
TINY = {"teacher.model.name": "mlp", "teacher.model.options": {"width": 4}, "student.model.name": "mlp"}
TINY |= {"student.epochs": 1, "synthesis.num_batches": 1, "synthesis.num_steps": 2, "synthesis.batch_size": 100}


def save_weights(path, shape, num_classes, width=4):
    """Saves random weights of an MLP, and returns them."""
    spec = DataSpec(shape, num_classes)
    module, rng = models.create("mlp", spec, {"width": width}), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
    values = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    to_safetensors(Teacher(values, LinenApply(module), spec), path)
    return values


def run(config, folder):
    return runs.run(config, folder, report=False)


def config_with(weights, **fields):
    config = config_lib.default()
    config.dataset.name = "two_moons"
    config.synthesis.num_groups = 2
    config.update_from_flattened_dict({**TINY, "teacher.weights": str(weights), **fields})
    return config


def test_run_with_a_teacher_from_a_file(tmp_path, monkeypatch):
    values = save_weights(tmp_path / "mine.safetensors", (2,), 2)
    config = config_with(tmp_path / "mine.safetensors", **{"run.student": False, "run.evaluation": False})
    assert "mine.safetensors" in dry_run.describe(config_lib.resolve(config))

    def no_data(*arguments, **options):
        raise AssertionError("the run needs no data")

    monkeypatch.setattr("cake_jax.data.load", no_data)
    monkeypatch.setattr("cake_jax.data.check", no_data)
    first = run(config, tmp_path / "run")
    loaded = cake_jax.load_run(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.teacher.variables, values)
    assert first["teacher"]["num_params"] == loaded.teacher.num_params
    assert first["seconds"]["teacher"] == 0

    # The run holds its teacher, so that it continues without the file.
    (tmp_path / "mine.safetensors").unlink()
    (tmp_path / "run" / "results.json").unlink()
    again = run(config, tmp_path / "run")
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"teacher.weights": "nowhere.safetensors"}, ("teacher.weights: ", "nowhere.safetensors")),
        ({"teacher.model.options": {"width": 5}}, ("0.weight has shape (4, 2)",)),
        ({"teacher.model.name": "logistic_regression", "teacher.model.options": {}}, ("mine.safetensors: ",)),
        ({"dataset.mean": (1.0, 2.0, 3.0)}, ("DataSpec.mean: give 1 value or 2",)),
    ],
)
def test_unusable_teacher_is_refused(fields, parts, tmp_path):
    save_weights(tmp_path / "mine.safetensors", (2,), 2)
    message = message_of(run, config_with(tmp_path / "mine.safetensors", **fields), tmp_path / "run")
    for part in parts:
        assert part in message


def test_teacher_from_a_file_and_a_run_is_refused(tmp_path):
    save_weights(tmp_path / "mine.safetensors", (2,), 2)
    first = config_with(tmp_path / "mine.safetensors", **{"run.student": False, "run.evaluation": False})
    run(first, tmp_path / "run")
    both = config_with(tmp_path / "mine.safetensors", **{"teacher.from_run": str(tmp_path / "run")})
    message = message_of(run, both, tmp_path / "other")
    assert message.startswith("teacher.weights: ")
    assert "not from both" in message


def test_config_replaces_the_normalisation():
    config = config_lib.default()
    before = config_lib.resolve(config)
    config.dataset.mean, config.dataset.std = (0.25,), (0.5,)
    after = config_lib.resolve(config)
    assert (after.spec.mean, after.spec.std) == ((0.25,), (0.5,)) != (before.spec.mean, before.spec.std)
    assert (after.spec.shape, after.spec.num_classes) == (before.spec.shape, before.spec.num_classes)
    x, old_x = (data.load(settings.data, settings.spec).test_x for settings in (after, before))
    np.testing.assert_allclose(after.spec.denormalize(x), before.spec.denormalize(old_x), atol=1e-6)
    assert np.abs(x - old_x).max() > 0.1


def config_without_data(weights, **fields):
    config = config_with(weights, **{"dataset.name": "none", "dataset.shape": (2,), "dataset.num_classes": 2})
    config.update_from_flattened_dict(fields)
    return config


def test_a_run_needs_no_data(tmp_path, monkeypatch):
    values = save_weights(tmp_path / "mine.safetensors", (2,), 2)
    with pytest.warns(CakeWarning, match="dataset.name: none, so accuracy and agreement are not measured"):
        results = runs.run(config_without_data(tmp_path / "mine.safetensors"), tmp_path / "run")
    loaded = cake_jax.load_run(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.teacher.variables, values)
    assert loaded.teacher.spec == DataSpec((2,), 2)
    assert results["samples"]["count"] == 100
    assert results["student"]["num_params"] == loaded.student.num_params
    for figure in (results["teacher"]["test_accuracy"], results["student"]["test_accuracy"]):
        assert figure is None
    assert (tmp_path / "run" / "report.html").exists()


def test_a_note_says_that_inputs_are_not_normalised(tmp_path):
    save_weights(tmp_path / "mine.safetensors", (2,), 2)
    config = config_without_data(tmp_path / "mine.safetensors")
    with pytest.warns(CakeWarning, match="the teacher gets inputs that are not normalised"):
        config_lib.resolve(config)
    config.dataset.mean = (0.5,)
    with pytest.warns(CakeWarning) as notes:
        config_lib.resolve(config)
    assert "normalised" not in str(notes[0].message)


def test_the_note_on_measured_pixels_is_left_out_if_the_user_gives_them(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x_test=x, y_test=np.arange(40) % 2)
    config = config_with("mine.safetensors", **{"dataset.name": "npz", "dataset.data_dir": str(tmp_path / "mine.npz")})
    with pytest.warns(CakeWarning, match="no training inputs"):
        config_lib.resolve(config)
    config.dataset.mean, config.dataset.std = (0.5,), (1.0,)
    config_lib.resolve(config)  # a warning would fail the test


def test_images_without_data_have_pixels_from_0_to_1(tmp_path):
    save_weights(tmp_path / "mine.safetensors", (8, 8, 3), 5)
    fields = {"dataset.shape": (8, 8, 3), "dataset.num_classes": 5, "dataset.mean": (0.5,), "dataset.std": (0.25,)}
    config = config_without_data(tmp_path / "mine.safetensors", **fields, **{"run.evaluation": False})
    assert config_lib.resolve(config).spec == DataSpec((8, 8, 3), 5, (0.5,), (0.25,), 0.0, 1.0)
    assert "no evaluation" in dry_run.describe(config_lib.resolve(config))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"dataset.shape": ()},
            "dataset.shape: empty; without data, set it to the shape of an input, such as (32, 32, 3)",
        ),
        (
            {"dataset.num_classes": 0},
            "dataset.num_classes: 0; without data, set it to the number of the teacher's classes",
        ),
        ({"teacher.weights": ""}, "teacher.weights: empty, and without data no teacher can be trained; name a file"),
        ({"method": "real"}, "method: 'real' needs data, and dataset.name is none"),
        (
            {"dataset.shape": (8, 8, 1), "dataset.mean": (33.0,), "dataset.std": (60.0,)},
            "dataset.mean: (33.0,) is outside of the pixels' range, 0 to 1; divide dataset.mean and dataset.std by",
        ),
        ({"dataset.name": "digits"}, "dataset.shape: 'digits' has its own; it is for dataset.name=none alone"),
    ],
)
def test_what_needs_data_is_refused_without_data(fields, message):
    config = config_without_data("mine.safetensors", **{"run.evaluation": False, **fields})
    assert message_of(config_lib.resolve, config).startswith(message)


def template(variant):
    spec = importlib.util.spec_from_file_location("custom", CUSTOM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


@pytest.mark.parametrize("variant", ["", "smoke", "reference", "no_data"])
def test_template_works(variant, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = (rng.uniform(0, 120, size=(200, 8, 8, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    arrays = {"x_train": images[:150], "y_train": labels[:150], "x_test": images[150:], "y_test": labels[150:]}
    np.savez(tmp_path / "mine.npz", **arrays)
    save_weights(tmp_path / "mine.safetensors", (8, 8, 3), 2)
    config = template(variant)
    if variant == "no_data":
        config.teacher.weights, config.run.evaluation = str(tmp_path / "mine.safetensors"), False
        assert config_lib.resolve(config).spec.shape == (32, 32, 3)
        return
    config.dataset.data_dir = str(tmp_path / "mine.npz")
    config_lib.check_fields(config)
    config.synthesis.num_groups = 2
    assert config_lib.resolve(config).spec.num_classes == 2
    if variant == "smoke":
        config.teacher.weights = str(tmp_path / "mine.safetensors")
        config.dataset.mean, config.dataset.std = (0.5,), (0.25,)
        for stage in ("teacher", "student"):
            config[stage].model.name, config[stage].model.options = "mlp", ConfigDict({"width": 4})
        assert run(config, tmp_path / "run")["student"]["test_agreement"] is not None
        assert cake_jax.load_run(tmp_path / "run").teacher.spec.mean == (0.5,)


@pytest.mark.filterwarnings("ignore:.*no training inputs:cake_jax.types.CakeWarning")
def test_template_for_vectors_takes_an_mlp_and_test_data(tmp_path):
    save_weights(tmp_path / "mine.safetensors", (7,), 3, width=128)
    x = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x_test=x, y_test=np.arange(40) % 3)
    config = template("vectors")
    config.update_from_flattened_dict(
        {
            "dataset.data_dir": str(tmp_path / "mine.npz"),
            "teacher.weights": str(tmp_path / "mine.safetensors"),
            "student.epochs": 2,
            "synthesis.num_batches": 1,
            "synthesis.num_steps": 2,
            "synthesis.num_groups": 3,
            "synthesis.batch_size": 60,
        }
    )
    results = run(config, tmp_path / "run")
    assert results["student"]["test_agreement"] > 0
    assert results["teacher"]["num_params"] == 7 * 128 + 128 + 2 * (128 * 128 + 128) + 128 * 3 + 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:dataset.name. none:cake_jax.types.CakeWarning")
@pytest.mark.parametrize(
    ("layout", "padding"),
    [("RepDistiller", False), ("pytorch-cifar", False), ("pytorch_resnet_cifar10", True), ("pytorch-cifar100", False)],
)
def test_one_command_makes_a_student_of_a_pytorch_resnet(layout, padding, tmp_path):
    torch, networks = pytest.importorskip("torch"), pytest.importorskip("torch_networks")
    torch.manual_seed(0)
    network = networks.ResNet((3, 3, 3), (16, 32, 64), 10, padding=padding).eval()
    state = networks.renamed(network.state_dict(), layout)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "net.th")
    ended = runs.command(
        f"--config={CUSTOM}:no_data",
        f"--config.teacher.weights={tmp_path / 'net.th'}",
        "--config.teacher.model.name=resnet20",
        *(["--config.teacher.model.options.shortcut=padding"] if padding else []),
        "--config.student.model.name=mlp",
        "--config.student.epochs=1",
        "--config.synthesis.num_batches=1",
        "--config.synthesis.num_steps=1",
        "--config.synthesis.batch_size=10",
        f"--workdir={tmp_path / 'run'}",
    )
    assert ended.code == 0, ended.err
    loaded = cake_jax.load_run(tmp_path / "run")
    assert loaded.student.num_params > 0
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    networks.assert_same_logits(loaded.teacher.predict(x), networks.logits(network, x))
