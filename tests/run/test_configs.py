"""Every config file: its docstring has the command, its variants resolve, and the quickest smoke variants run."""

import importlib.util
import itertools

import pytest
import runs
from cake_errors import message_of

from cake_jax.config import default, resolve

CONFIGS = runs.ROOT / "configs"
FILES = sorted(path.stem for path in CONFIGS.glob("*.py"))
WITH_VARIANTS = [name for name in FILES if name not in ("default", "mnist_matrix", "ladder")]


def module_of(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_docstring_has_the_command(name):
    script = "matrix" if name in ("mnist_matrix", "ladder") else "run"
    assert f"python scripts/{script}.py --config=configs/{name}.py" in module_of(name).__doc__


def test_default_config_resolves():
    resolve(module_of("default").get_config())


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_variants_resolve(name):
    module = module_of(name)
    assert {"smoke", "reference"} <= set(module.VARIANTS)
    assert "no variant 'nope'" in message_of(module.get_config, "nope")
    if name != "custom":  # it needs data and weights: see test_imported_teacher.py
        for variant in ("", *module.VARIANTS):
            resolve(module.get_config(variant))


@pytest.mark.parametrize(("name", "models"), [("mnist_matrix", "MODELS"), ("ladder", "SMALL"), ("ladder", "LARGE")])
def test_every_cell_of_a_matrix_resolves(name, models):
    module = module_of(name)
    named = getattr(module, models)
    of_cells = {}
    for teacher, student in itertools.product(named, repeat=2):
        settings = resolve(module.get_config(f"{teacher}-{student}"))
        of_cells[teacher, student] = (settings.teacher.model, settings.student.model)
        trial = resolve(module.get_config(f"{teacher}-{student}-smoke"))
        assert settings.samples.synthesis.num_batches > trial.samples.synthesis.num_batches
    for (teacher, student), (of_teacher, of_student) in of_cells.items():
        assert (of_teacher, of_student) == (of_cells[teacher, teacher][0], of_cells[student, student][1])
        assert (of_teacher == of_student) == (teacher == student)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("mnist_matrix", ""), ("mnist_matrix", "cnn"), ("mnist_matrix", "cnn-nope"), ("mnist_matrix", "cnn-mlp-few")]
    + [("ladder", ""), ("ladder", "resnet20-resnet18"), ("ladder", "resnet8-thin8-few")],
)
def test_variant_that_is_no_cell_is_refused(name, variant):
    assert f"no variant '{variant}'" in message_of(module_of(name).get_config, variant)


@pytest.mark.parametrize("name", ["digits", "two_moons"])
def test_smoke_variant_runs(name, tmp_path):
    config = module_of(name).get_config("smoke")
    results = runs.run(config, tmp_path, config_name=name, variant="smoke")
    assert results["student"]["test_accuracy"] > 0.1


def test_reference_of_cifar10_takes_64_million_gradients():
    """The CAKE authors' code makes 500 mini-batches of 500 samples in 256 steps."""
    settings = resolve(module_of("cifar10").get_config("reference")).samples.synthesis
    assert settings.num_batches * settings.batch_size * settings.num_steps == 64_000_000


@pytest.mark.parametrize(("name", "variant"), [("mnist", "few"), ("mnist", "reference"), ("cifar10", "reference")])
def test_students_of_stored_labels_have_the_default_recipe(name, variant):
    student, usual = (config.student for config in (module_of(name).get_config(variant), default()))
    for field in ("optimizer", "weight_decay", "augment", "distance", "views"):
        assert student[field] == usual[field]
    assert student.learning_rate == {"few": None, "reference": 0.5}[variant]


# Weights of the contrastive term and of the total variation, and the number of mini-batches.
GRAY, COLOUR = (1e-3, 1e7, 512), (1e1, 1e5, 500)
# The settings of the CAKE authors' code, by config: networks, weights, epochs, learning rate and augmentation. Networks
# and augmentation of data sets that it does not have are those of the config. The learning rate of the digits is ours.
REFERENCES = {
    "digits": ("mlp", GRAY, 30, 0.1, ()),
    "mnist": ("resnet18", GRAY, 30, 0.5, ()),
    "mnist_cnn": ("cnn", GRAY, 10, 0.1, ()),
    "fmnist": ("resnet18", GRAY, 30, 0.1, ("randaugment",)),
    "cifar2": ("resnet18", COLOUR, 30, 0.5, ()),
    "cifar10": ("resnet18", COLOUR, 30, 0.5, ("randaugment",)),
    "cifar100": ("resnet18", COLOUR, 30, 0.5, ("autoaugment_cifar10",)),
    "svhn": ("resnet18", (1e1, 1e5, 512), 30, 0.5, ("autoaugment_svhn",)),
    "tiny_imagenet": ("resnet34", COLOUR, 30, 0.5, ("crop", "flip")),
    "imagenet12": ("resnet18", COLOUR, 30, 0.5, ("crop", "flip")),
}


@pytest.mark.parametrize("name", sorted({*WITH_VARIANTS} - {"custom", "ideal", "two_moons"}))
def test_reference_is_that_of_the_authors_code(name):
    settings = resolve(module_of(name).get_config("reference"))
    synthesis, teacher, student = settings.samples.synthesis, settings.teacher, settings.student
    weights = (synthesis.weights.contr, synthesis.weights.tv, synthesis.num_batches)
    training = teacher.training
    found = teacher.model.name, weights, training.epochs, training.learning_rate, training.augment
    assert found == REFERENCES[name]
    assert (synthesis.weights.cls, synthesis.batch_size, synthesis.num_steps) == (1e3, 500, 256)
    assert (student.training.epochs, student.training.learning_rate) == (training.epochs, training.learning_rate)
    assert student.model.name == ("resnet18" if name == "tiny_imagenet" else teacher.model.name)


@pytest.mark.parametrize("seed", [0, 2])
def test_reference_of_digits_stays_finite(seed, tmp_path):
    """With a learning rate of 0.5, the teacher of seed 2 and the samples of seed 0 became NaN."""
    config = module_of("digits").get_config("reference")
    config.seed, config.synthesis.num_batches, config.student.epochs = seed, 1, 1
    results = runs.run(config, tmp_path, report=False)
    assert results["teacher"]["test_accuracy"] > 0.95


def test_reference_of_two_moons_is_that_of_the_authors_code():
    settings = resolve(module_of("two_moons").get_config("reference"))
    synthesis = settings.samples.synthesis
    assert (synthesis.num_batches, synthesis.batch_size, synthesis.num_groups, synthesis.num_steps) == (
        100,
        100,
        2,
        250,
    )
    assert (synthesis.step_size, synthesis.weights.cls, synthesis.weights.contr) == (1e-2, 1e-2, 1e-3)
    assert settings.teacher.training.epochs == settings.student.training.epochs == 30


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_reference_scales_grey_images_to_32_pixels(name):
    assert resolve(module_of(name).get_config("reference")).spec.shape == (32, 32, 1)
