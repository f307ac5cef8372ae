"""Every config file: its variants resolve, its docstring says what to type, and its smoke variant runs."""

import importlib.util
import itertools
import re
from pathlib import Path

import pytest

from cake_jax import CakeError, config as config_lib, experiment

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if path.stem != "mnist_matrix")


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_variants_resolve(path):
    module = module_of(path)
    assert f"python scripts/run.py --config=configs/{path.name}" in module.__doc__
    if path.stem == "default":
        config_lib.resolve(module.get_config())
        return
    assert {"smoke", "reference"} <= set(module.VARIANTS)
    if path.stem == "custom":  # the user's data: see test_imported_teacher.py
        return
    for variant in ("", *module.VARIANTS):
        config = module.get_config(variant)
        config_lib.resolve(config)
        with pytest.raises((KeyError, AttributeError)):
            config.synthesis.no_such_field = 1
    with pytest.raises(CakeError, match="no variant 'nope'"):
        module.get_config("nope")


def test_every_cell_of_the_matrix_resolves():
    module = module_of(CONFIGS / "mnist_matrix.py")
    for teacher, student in itertools.product(module.MODELS, repeat=2):
        config = module.get_config(f"{teacher}-{student}")
        assert (config.teacher.model.name, config.student.model.name) == (teacher, student)
        trial = module.get_config(f"{teacher}-{student}-smoke")
        assert config_lib.resolve(config).synthesis.num_batches > config_lib.resolve(trial).synthesis.num_batches
    for variant in ("", "cnn", "cnn-nope", "cnn-mlp-few"):
        with pytest.raises(CakeError, match=f"no variant '{variant}'"):
            module.get_config(variant)


@pytest.mark.parametrize("name", ["digits", "two_moons"])
def test_smoke_variants_run(name, tmp_path):
    module = module_of(next(path for path in FILES if path.stem == name))
    results = experiment.run(module.get_config("smoke"), tmp_path, config_name=name, variant="smoke")
    assert results["student"]["test_accuracy"] > 0.1


def test_the_reference_counts_are_the_reference_s():
    """500 mini-batches of 500 samples and 256 steps: 64 million teacher gradients for one CIFAR-10 run."""
    module = module_of(next(path for path in FILES if path.stem == "cifar10"))
    settings = config_lib.resolve(module.get_config("reference")).synthesis
    assert settings.num_batches * settings.batch_size * settings.num_steps == 64_000_000


def test_the_reference_s_weights_and_augmentation_are_those_of_its_data():
    found = {}
    for path in FILES:
        if path.stem not in ("default", "two_moons", "custom", "ideal"):
            config = module_of(path).get_config("reference")
            weights, training = config.synthesis.weights, config_lib.resolve(config).teacher
            assert (weights.cls, config.synthesis.num_batches, training.epochs) == (1e3, 500, 30)
            found[path.stem] = (weights.contr, weights.tv, training.learning_rate, training.augment[-1:])
    grey, colour = (1e-3, 1e7), (1e1, 1e5)
    assert found == {
        "digits": (*grey, 0.5, ()),
        "mnist": (*grey, 0.5, ()),
        "fmnist": (*grey, 0.1, ("randaugment",)),
        "cifar2": (*colour, 0.5, ("randaugment",)),
        "cifar10": (*colour, 0.5, ("randaugment",)),
        "cifar100": (*colour, 0.5, ("autoaugment_cifar10",)),
        "svhn": (*colour, 0.5, ("autoaugment_svhn",)),
        "tiny_imagenet": (*colour, 0.5, ("flip",)),
        "imagenet12": (*colour, 0.5, ("flip",)),
    }


def test_augmentation_of_each_stage_comes_from_its_own_field():
    config = config_lib.default()
    config.student.augment = ("crop", "cutout")
    settings = config_lib.resolve(config)
    assert (settings.teacher.augment, settings.student.augment) == ((), ("crop", "cutout"))
    config.teacher.augment = ("no",)
    with pytest.raises(CakeError, match=r"teacher\.augment: 'no'"):
        config_lib.resolve(config)


def test_the_first_difference_is_named_by_its_field():
    one = config_lib.default().to_dict()
    other = config_lib.default().to_dict()
    assert config_lib.first_difference(one, other) is None
    other["synthesis"]["weights"]["tv"] = 3.0
    assert config_lib.first_difference(one, other) == "synthesis.weights.tv"
    del other["synthesis"]["weights"]["cls"]
    assert config_lib.first_difference(one, other) == "synthesis.weights.cls"


def test_settings_of_another_method_make_no_difference():
    one = config_lib.default().to_dict()
    other = config_lib.default().to_dict()
    other["methods"]["ideal"]["evenness"] = 3.0
    del other["methods"]["dfme"]
    assert config_lib.first_difference(one, other) is None
    other["methods"]["cake"]["langevin_temperature"] = 0.5
    assert config_lib.first_difference(one, other) == "methods.cake.langevin_temperature"


def test_no_field_of_the_settings_is_out_of_a_config_s_reach():
    fields = {name for name, _ in config_lib._flat(config_lib.default().to_dict())}
    for name in ("step_size", "langevin_temperature", "contrastive", "weights.entropy", "sets_per_chunk"):
        assert f"synthesis.{name}" in fields
    assert all(re.fullmatch(r"[a-z_0-9.]+", name) for name in fields)
