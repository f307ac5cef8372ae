"""The config: wrong values are refused by their field, and every setting of the library has a field."""

import ast
import dataclasses
import importlib.util
from pathlib import Path

import pytest
from cake_errors import message_of
from ml_collections import ConfigDict
from runs import ROOT, small_config

from cake_jax.black_box import QuerySettings
from cake_jax.config import check_fields, default, resolve
from cake_jax.methods import METHODS
from cake_jax.run.settings import BlackBoxSettings, RunSettings
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.synthesis.priors import PRIORS, Prior
from cake_jax.synthesis.targets import TARGETS
from cake_jax.training import DistillationLoss, TrainSettings
from cake_jax.training.settings import DISTILLATION

BLACK_BOX = {"method": "noise", "black_box.answers": "labels", "black_box.budget": 500}
REMOTE = {**BLACK_BOX, "black_box.function": "a:b"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed: -1 "),
        ({"seed": 2**32}, "seed: 4294967296 "),
        ({"method": "bread"}, "method: 'bread' "),
        ({"dataset.name": "imagenot"}, "dataset.name: 'imagenot' "),
        ({"dataset.max_train_examples": -1}, "dataset.max_train_examples: -1 "),
        ({"dataset.image_size": -1}, "dataset.image_size: -1 "),
        ({"dataset.mean": (1.0, 2.0, 3.0)}, "DataSpec.mean: "),
        ({"dataset.std": (0.0,)}, "DataSpec.std: "),
        ({"dataset.std": ("a",)}, "dataset.std: ('a',) are not numbers"),
        ({"teacher.model.name": "vgg"}, "model.name: 'vgg' "),
        ({"student.model.name": "vgg"}, "model.name: 'vgg' "),
        ({"teacher.epochs": 0}, "teacher.epochs: 0 "),
        ({"student.batch_size": 0}, "student.batch_size: 0 "),
        ({"teacher.augment": ("no",)}, "teacher.augment: 'no' "),
        ({"student.augment": ("flip",)}, "student.augment: 'flip' "),
        ({"student.temperature": 0.0}, "student.temperature: 0.0 "),
        ({"teacher.temperature": 0.0}, "teacher.temperature: 0.0 "),
        ({"teacher.temperature": float("inf")}, "teacher.temperature: inf must be finite"),
        ({**REMOTE, "teacher.temperature": 2.0}, "teacher.temperature: 2.0, but an endpoint "),
        ({**REMOTE, "teacher.temperature": 2.0, "teacher.weights": "a"}, "teacher.temperature: 2.0, but an endpoint "),
        ({"student.hard_weight": 1.5}, "student.hard_weight: 1.5 "),
        ({"student.distance": "l3"}, "student.distance: 'l3' "),
        ({"student.views.ask": True, "student.views.fresh": ("leaves",)}, "student.views.fresh: "),
        ({"student.views.mixup": 0.5}, "student.views.mixup: "),
        ({"student.views.adversary_every": 0}, "student.views.adversary_every: 0 "),
        ({**BLACK_BOX, "student.views.ask": True, "student.views.adversary": 0.5}, "student.views.adversary: "),
        (
            {"student.views.ask": True, "method": "noise", "black_box.answers": "labels", "black_box.budget": 9},
            "black_box.budget: 9 ",
        ),
        ({**BLACK_BOX, "student.views.ask": True, "student.distance": "l2", "student.epochs": 1}, "student.distance: "),
        ({"synthesis.num_batches": 0}, "synthesis.num_batches: 0 "),
        ({"synthesis.num_steps": -1}, "synthesis.num_steps: -1 "),
        ({"synthesis.step_size": 0.0}, "synthesis.step_size: 0.0 "),
        ({"synthesis.schedule": "no"}, "synthesis.schedule: 'no' "),
        ({"synthesis.optimizer": "adamw"}, "synthesis.optimizer: 'adamw' "),
        ({"synthesis.precision": "half"}, "synthesis.precision: 'half' "),
        ({"synthesis.start": "no"}, "synthesis.start: 'no' "),
        ({"synthesis.start": "smooth"}, "synthesis.start: "),
        ({"synthesis.targets": "no"}, "synthesis.targets: 'no' "),
        ({"synthesis.contrastive": "no"}, "synthesis.contrastive: 'no' "),
        ({"synthesis.weights.tv": 1.0}, "synthesis.weights.tv: "),
        ({"synthesis.langevin_temperature": -1.0}, "synthesis.langevin_temperature: -1.0 "),
        ({"method": "lake", "synthesis.optimizer": "adam"}, "synthesis.optimizer: "),
        ({"run.teacher": False}, "run.teacher: "),
        ({"run.synthesis": False}, "run.synthesis: "),
        ({"teacher.from_run": "missing"}, "missing/teacher: "),
        ({"student.from_run": "missing"}, "missing/student: "),
        ({"black_box.url": "http://a"}, "black_box.answers: "),
        ({"black_box.function": "a:b"}, "black_box.answers: "),
        ({**BLACK_BOX, "black_box.answers": "nods"}, "black_box.answers: 'nods' "),
        ({**BLACK_BOX, "black_box.budget": 0}, "black_box.budget: "),
        ({**BLACK_BOX, "black_box.url": "http://a", "black_box.function": "a:b"}, "black_box.url: "),
        ({**BLACK_BOX, "black_box.tries": 0}, "QuerySettings.tries: 0 "),
        ({**BLACK_BOX, "method": "cake"}, "method: 'cake' "),
        ({**BLACK_BOX, "black_box.budget": 99_999, "student.temperature": 4.0}, "student.temperature: 4.0 would "),
        ({**BLACK_BOX, "method": "inversion"}, "method: 'inversion' "),
        ({**BLACK_BOX, "method": "dfme"}, "method: 'dfme' "),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_field(fields, message):
    assert message_of(resolve, small_config(**fields)).startswith(message)


@pytest.mark.parametrize("field", ["synthesis.weights.cls", "black_box.evaluate", "log.csv", "seed"])
def test_a_config_that_lacks_a_field_is_refused(field):
    document = default().to_dict()
    *sections, last = field.split(".")
    section = document
    for name in sections:
        section = section[name]
    del section[last]
    message = message_of(check_fields, ConfigDict(document))
    assert message.startswith(f"config.{field}: missing")
    assert message == message_of(resolve, ConfigDict(document))


@pytest.mark.parametrize("access", ["a field", "a section"])
def test_a_config_file_cannot_set_a_field_that_does_not_exist(access):
    config = default()
    with pytest.raises((KeyError, AttributeError)):
        (config if access == "a section" else config.synthesis).no_such_field = 1


# The rest is about the reach of a config. A field in this table gets this other value; the others change by their type.
OTHER_VALUES = {
    "method": "lake",
    "dataset.data_dir": "elsewhere",
    "dataset.class_names": "names.txt",
    "dataset.mean": (0.25,),
    "dataset.name": "mnist",
    "dataset.std": (0.5,),
    "teacher.weights": "weights.safetensors",
    "black_box.answers": "scores",
    "black_box.authorization": "TOKEN",
    "black_box.body": "npy",
    "black_box.function": "module:name",
    "black_box.ledger": "ledger.sqlite",
    "black_box.url": "http://elsewhere",
    "synthesis.contrastive": "snn",
    "synthesis.from_run": "elsewhere",
    "synthesis.optimizer": "adam",
    "precision": "bf16",
    "synthesis.schedule": "cosine",
    "synthesis.start": "smooth",
    "synthesis.targets": "first",  # the fixture `extended` adds this name
    "methods.real.hard_label": "teacher",
    "methods.adversarial.disagreement": "l1",
    "methods.zeroth_order.directions": "coordinate",
    "methods.zeroth_order.search": "boundary",
    "augment": ("flip",),
    "features": (8, 8, 8),
    "model.name": "logistic_regression",
    "model.options": {"width": 5},
    "optimizer": "adam",
    "schedule": "constant",
    "distance": "l1",
    "views.fresh": ("normal",),
}


def other_value(path, value):
    """A value of the field that differs from `value`, and works."""
    for name in (path, ".".join(path.split(".")[-2:]), path.split(".")[-1]):
        if name in OTHER_VALUES:
            return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    assert value is None or isinstance(value, float), f"{path}: add another value to OTHER_VALUES"
    return value / 2 if value else 0.5


@pytest.fixture
def extended(monkeypatch):
    """A second distribution of targets and a second data prior."""
    monkeypatch.setitem(TARGETS, "first", lambda key, num_classes, num_groups: range(num_groups))
    monkeypatch.setitem(PRIORS, "mine", Prior(lambda x: x.mean()))


def config_for(method, **fields):
    """A config on small images, in sets of two."""
    config = default()
    config.method = method
    config.synthesis.num_groups = 2
    config.update_from_flattened_dict(fields)
    return config


def changed(config, path, **more):
    """The settings once the field has another value, and `more` fields theirs."""
    *sections, name = path.split(".")
    section = changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(more)
    for each in sections:
        section = section[each]
    value = other_value(path, section[name])
    section[name] = ConfigDict(value) if isinstance(value, dict) else value
    return resolve(changed)


def settings_below(settings, prefix=""):
    """All settings that are no dataclass, by their path."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_below(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


# Settings that follow from other fields, with the reason.
OUT_OF_REACH = {
    "document": "it is the config itself",
    "baseline": "run.baseline makes it: see test_baseline.py",
    "spec.shape": "the data set decides it",
    "spec.num_classes": "the data set decides it",
    "spec.low": "the data set decides it",
    "spec.high": "the data set decides it",
    "spec.class_names": "the data set decides it",
    "data.shape": "it is for runs without data: see test_imported_teacher.py",
    "data.num_classes": "it is for runs without data: see test_imported_teacher.py",
    "student.from_run": "it must be a finished run: see test_experiment.py",
    "black_box.queries.first_wait": "the library's waits between the repetitions of a request suit all servers",
    "black_box.queries.max_wait": "the library's waits between the repetitions of a request suit all servers",
}
# The fields whose names are not those of the settings.
FIELDS = {
    "metrics_writers": "log.csv",
    "profile": "log.profile",
    "spec.mean": "dataset.mean",
    "spec.std": "dataset.std",
    "teacher.source": "teacher.weights",
    "teacher.path": "teacher.weights",
    "student.memory_bytes": "student.memory_gb",
    "samples.synthesis.weights.priors": "synthesis.weights.mine",
}
SECTIONS = {
    "data.": "dataset.",
    "stages.": "run.",
    "teacher.training.": "teacher.",
    "student.training.": "student.",
    "student.loss.": "student.",
    "black_box.queries.": "black_box.",
    "samples.synthesis.": "synthesis.",
    "samples.": "synthesis.",
}


def field_of(path):
    """The config field of a setting."""
    if path in FIELDS:
        return FIELDS[path]
    for section, name in SECTIONS.items():
        if path.startswith(section):
            return name + path.removeprefix(section)
    return path


# A stage that is off needs later stages to be off too. Views need the teacher as labeller.
WITH_OTHERS = {
    **{f"student.views.{name}": {"student.views.ask": True} for name in ("fresh", "mixup", "cutmix", "adversary")},
    "run.teacher": {"run.synthesis": False, "run.student": False, "run.evaluation": False},
    "run.synthesis": {"run.student": False},
}
BASES = {
    "a white box": {"method": "cake"},
    "a black box": {"method": "noise", "black_box.answers": "labels", "black_box.budget": 5000},
}


@pytest.mark.parametrize("base", BASES)
def test_every_setting_of_a_run_has_a_field(base, extended):
    config = config_for(**BASES[base])
    before = dict(settings_below(resolve(config)))
    assert {path.split(".")[0] for path in before} == {field.name for field in dataclasses.fields(RunSettings)}
    for path, value in before.items():
        if path in OUT_OF_REACH or (base == "a black box" and not path.startswith("black_box.")):
            continue
        if path == "black_box":  # a white box has none: the other base has its fields
            continue
        field = field_of(path)
        after = dict(settings_below(changed(config, field, **WITH_OTHERS.get(field, {}))))
        assert after[path] != value, f"no field changes {path}"


def test_a_run_that_makes_no_samples_does_not_ask_what_its_method_needs():
    """So the teachers of a sweep over methods of a black box are trained by runs of the default method."""
    stages = {f"run.{stage}": False for stage in ("synthesis", "student", "evaluation")}
    assert resolve(config_for(**{**BLACK_BOX, "method": "cake", **stages})).access == "labels"


def test_the_settings_out_of_reach_exist(extended):
    paths = dict(settings_below(resolve(config_for(**BASES["a black box"]))))
    assert set(OUT_OF_REACH) <= set(paths)


# Fields that a method fixes, with the reason. None of them changes the method's settings.
NO_STEPS = "it makes no steps"
CONSTANT = "its step size is constant"
GENERATED = "its samples come from a generator"
FIXED = {
    ("lake", "synthesis.optimizer"): "Adam does not go together with Langevin noise: refused",
    ("starts", "synthesis.num_steps"): NO_STEPS,
    ("starts", "synthesis.candidates"): "the teacher chooses none",
    ("noise", "synthesis.num_steps"): NO_STEPS,
    ("noise", "synthesis.candidates"): "the teacher chooses none",
    ("noise", "synthesis.start"): "its samples are Gaussian noise",
    ("real", "synthesis.num_steps"): NO_STEPS,
    ("naive", "synthesis.schedule"): CONSTANT,
    ("naive", "synthesis.start"): "image_priors decides",
    ("naive", "synthesis.candidates"): "image_priors decides",
    ("inversion", "synthesis.schedule"): CONSTANT,
    ("inversion", "synthesis.optimizer"): "it takes Adam",
    ("inversion", "synthesis.langevin_temperature"): "Adam does not go together with Langevin noise: refused",
    ("generative", "synthesis.schedule"): CONSTANT,
    ("generative", "synthesis.candidates"): GENERATED,
    ("generative", "synthesis.start"): GENERATED,
    ("generative", "synthesis.contrastive"): "'snn' couples sets, which its batches do not hold: refused",
    ("adversarial", "synthesis.schedule"): CONSTANT,
    ("adversarial", "synthesis.candidates"): GENERATED,
    ("dfme", "synthesis.schedule"): CONSTANT,
    ("dfme", "synthesis.candidates"): GENERATED,
    ("ideal", "synthesis.schedule"): CONSTANT,
    ("ideal", "synthesis.candidates"): GENERATED,
}
FIXED_WEIGHTS = {
    ("naive", "contr"): "it has the cross entropy alone",
    ("naive", "tv"): "image_priors decides",
    ("naive", "entropy"): "it has the cross entropy alone",
    ("naive", "priors"): "image_priors decides",
    ("inversion", "contr"): "contrast decides",
    ("generative", "entropy"): "it couples sets, which its batches do not hold: refused",
}


def fields_of_method(name):
    """The config field of each setting of a method."""
    own = default().methods[name]
    for field in dataclasses.fields(METHODS[name].settings):
        section = f"methods.{name}" if field.name in own else "synthesis"
        if field.name == "weights":
            continue
        nested = own[field.name] if section != "synthesis" and isinstance(own[field.name], ConfigDict) else None
        yield from (f"{section}.{field.name}.{each}" for each in nested) if nested else [f"{section}.{field.name}"]


def synthesis_of(config, path):
    """The synthesis once the field has another value. None if that is refused."""
    try:
        return changed(config, path).samples.synthesis
    except ValueError:
        return None


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_has_a_field(name, extended):
    config = config_for(name)
    before = resolve(config).samples.synthesis
    for path in fields_of_method(name):
        after = synthesis_of(config, path)
        reached = after is not None and after != before
        assert reached != ((name, path) in FIXED), f"{path} does {'' if reached else 'not '}change the settings"
    for field in dataclasses.fields(Weights):
        after = synthesis_of(config, f"synthesis.weights.{'mine' if field.name == 'priors' else field.name}")
        reached = after is not None and getattr(after.weights, field.name) != getattr(before.weights, field.name)
        assert reached != ((name, field.name) in FIXED_WEIGHTS), f"weights.{field.name}"


def defaults_of(settings):
    """The defaults of a dataclass, nested ones as dicts."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {name: vars(value) if dataclasses.is_dataclass(value) else value for name, value in defaults.items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_defaults_stand_once_in_its_settings(name):
    """The config has the fields that the method adds, and those whose default it changes."""
    common = defaults_of(SynthesisSettings)
    defaults = defaults_of(METHODS[name].settings)
    own = default().methods[name].to_dict()
    assert own == {each: defaults[each] for each in own}
    assert {each for each, value in defaults.items() if each not in common or value != common[each]} <= set(own)


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("synthesis", SynthesisSettings()),
        ("synthesis.weights", Weights()),
        ("teacher", TrainSettings()),
        ("student", DISTILLATION),
        ("student", DistillationLoss()),
        ("black_box", QuerySettings("", 0)),
        ("black_box", BlackBoxSettings(QuerySettings("", 0))),
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else value,
)
def test_the_config_and_the_library_have_the_same_defaults(section, settings):
    fields = default()
    for name in section.split("."):
        fields = fields[name]
    theirs = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    shared = {name: value for name, value in theirs.items() if name in fields and name != "weights"}
    assert len(shared) >= 2
    # In a config, no limit is 0, and no temperature leaves the choice to the method.
    no_value = {"rows_per_second": 0.0, "requests_per_second": 0.0, "langevin_temperature": None}
    assert {name: fields[name] for name in shared} == {
        name: no_value.get(name, value) for name, value in shared.items()
    }


def test_a_temperature_in_the_config_has_precedence_over_the_method_s():
    for method, own in {"cake": 0.0, "lake": 1.0, "naive": 0.0}.items():
        assert resolve(config_for(method)).samples.synthesis.langevin_temperature == own
        config = config_for(method, **{"synthesis.langevin_temperature": 0.5})
        assert resolve(config).samples.synthesis.langevin_temperature == 0.5


def imported_packages(path):
    """The top-level packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_only_the_config_and_the_command_line_import_ml_collections():
    package = Path(importlib.util.find_spec("cake_jax").origin).parent
    assert package.parent == ROOT
    importing = {path for path in package.rglob("*.py") if "ml_collections" in imported_packages(path)}
    config = {package / "config" / name for name in ("fields.py", "resolution.py", "baseline.py")}
    assert importing == {*config, *(package / "cli" / name for name in ("main.py", "command_line.py"))}
