"""The config: every field with its default, and the one place where fields become typed arguments.

Config files start from `default()` and change what they need. Flags change single fields:
`--config.synthesis.num_steps=64`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from cake_jax import data, methods, models
from cake_jax.synthesis_settings import SynthesisSettings, Weights
from cake_jax.teachers import QuerySettings
from cake_jax.teachers.answers import KINDS as ANSWERS
from cake_jax.train import DistillationLoss, TrainSettings, check as check_training
from cake_jax.types import CakeError, DataSpec


def default() -> ConfigDict:
    """A locked config of all fields, with defaults that suit small images."""
    config = ConfigDict()
    config.seed = 0
    config.method = "cake"  # a name in cake_jax.methods.METHODS

    # By method, what it reads besides config.synthesis; a field that is None there is taken from here.
    config.methods = ConfigDict({name: dict(method.defaults) for name, method in methods.METHODS.items()})

    # Stages. One that is off and needed by a later one is taken from an earlier run (from_run).
    config.run = ConfigDict({"teacher": True, "synthesis": True, "student": True, "evaluation": True})

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # a name in cake_jax.data.NAMES
    # Folder of prepared TFDS data sets, empty for TFDS's own default; or of images; or, of `npz`, the file.
    config.dataset.data_dir = ""
    config.dataset.image_size = 0  # side that images of `folder` are scaled to; 0 where all are of one size
    config.dataset.max_train_examples = 0  # 0 for all
    config.dataset.mean = ()  # of pixels, a value a channel or one for all; empty for the data set's own. Weights that
    config.dataset.std = ()  # were trained elsewhere need those of that training.

    config.teacher = _training(validation_fraction=0.1)
    config.teacher.from_run = ""  # folder of a finished run whose teacher to use; no teacher is trained then
    # File of weights for teacher.model, safetensors or PyTorch's; likewise.
    config.teacher.weights = ""

    # A teacher that can only be queried. Without url and function it is the run's own teacher in disguise.
    config.black_box = ConfigDict()
    config.black_box.answers = ""  # labels, scores (probabilities) or logits; empty for a teacher that is no black box
    config.black_box.budget = 0  # inputs that it may be asked for in all; required
    config.black_box.url = ""  # of an HTTP endpoint
    config.black_box.body = "json"  # json or npy
    config.black_box.authorization = ""  # environment variable that holds the value of the header Authorization
    config.black_box.timeout = 60.0  # seconds without a sign of the server
    config.black_box.function = ""  # module:name of a function of pixels
    config.black_box.pixels = True  # whether a function or endpoint sees pixels, else normalised inputs
    config.black_box.max_rows = 256  # inputs a request
    config.black_box.rows_per_second = 0.0  # 0 for no limit
    config.black_box.requests_per_second = 0.0  # 0 for no limit
    config.black_box.tries = 6  # of a request that is not answered
    config.black_box.ledger = ""  # file of queries and answers; empty for ledger.sqlite in the run's folder
    config.black_box.evaluate = False  # whether an endpoint or function is asked for the test set too; it counts

    config.student = _training(validation_fraction=0.01)
    config.student.temperature = 1.0  # tau of the soft labels
    config.student.hard_weight = 0.0  # weight of the cross entropy to the teacher's argmax
    config.student.memory_gb = 4.0  # more samples than this are read from the disk as the student trains

    config.synthesis = ConfigDict()
    config.synthesis.num_batches = 10  # M mini-batches
    config.synthesis.batch_size = 500  # samples a mini-batch
    config.synthesis.num_groups = 10  # samples a set, each of another target class
    config.synthesis.num_steps = 256  # T gradient steps
    config.synthesis.step_size = 0.1  # of the first mini-batch
    config.synthesis.schedule = "linear"  # constant, linear or cosine, in decades over the mini-batches
    config.synthesis.decay_magnitude = 4.0  # decades that the step size falls
    config.synthesis.optimizer = "sgd"  # sgd or adam
    config.synthesis.langevin_temperature = config_dict.placeholder(float)  # None: as config.methods has it
    config.synthesis.precision = "float32"  # float32 or bf16, of the teacher's arithmetic
    config.synthesis.start = "normal"  # what samples start from: normal, and for images smooth or contrasted
    config.synthesis.contrastive = "mse"  # mse or snn
    config.synthesis.snn_temperature = 1.0
    config.synthesis.weights = ConfigDict({"cls": 1.0, "contr": 1.0, "tv": 0.0, "entropy": 0.0})
    config.synthesis.sets_per_chunk = 0  # sets that step together on a device; 0 chooses
    config.synthesis.min_step_size = config_dict.placeholder(float)  # samples outside this range are made, but
    config.synthesis.max_step_size = config_dict.placeholder(float)  # the student does not see them
    config.synthesis.from_run = ""  # folder of a finished run whose samples to use; none are made then
    return config.lock()


def with_variant(config: ConfigDict, variant: str, variants: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """The config with the fields that a variant changes.

    Args:
      config: Of the config file without a variant; changed in place.
      variant: What stands after the colon in `--config=file.py:variant`; empty for none.
      variants: By name, the fields that change: `{"smoke": {"synthesis.num_steps": 8}}`.

    Returns:
      `config`.

    Raises:
      CakeError: Unknown variant.
    """
    if variant and variant not in variants:
        raise CakeError(f"config: no variant '{variant}'; there are {', '.join(variants)}")
    config.update_from_flattened_dict(dict(variants.get(variant, {})))
    return config


def reference(
    *, cls: float, contr: float, tv: float, learning_rate: float = 0.5, augment: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of a `:reference` variant: what the CAKE reference runs on images, but for its networks.

    Args:
      cls: Weight of the cross entropy; the reference has 1e3 for all images.
      contr: Weight of the contrastive loss; 1e1 for CIFAR and SVHN, 1e-3 for MNIST and Fashion-MNIST.
      tv: Weight of the total variation; 1e5 and 1e7.
      learning_rate: Of teacher and student; 0.1 for Fashion-MNIST.
      augment: Of the teacher's training images.

    Returns:
      A variant for `with_variant`.
    """
    training = {"epochs": 30, "batch_size": 256, "learning_rate": learning_rate}
    return {
        **{f"{stage}.{name}": value for stage in ("teacher", "student") for name, value in training.items()},
        "teacher.augment": augment,
        "student.temperature": 1.0,
        "synthesis.start": "normal",
        "synthesis.decay_magnitude": 4.0,
        "synthesis.num_batches": 500,
        "synthesis.num_steps": 256,
        "synthesis.precision": "bf16",
        "synthesis.weights.cls": cls,
        "synthesis.weights.contr": contr,
        "synthesis.weights.tv": tv,
    }


class Settings(NamedTuple):
    """A config as typed arguments.

    Attributes:
      spec: Of the data set.
      method: The method.
      teacher: How the teacher is trained.
      synthesis: How samples are made, as the method reads it: `SynthesisSettings`, or what inherits from them.
      student: How the student is trained.
      queries: How the teacher is queried; None for a teacher that is no black box.
    """

    spec: DataSpec
    method: methods.Method
    teacher: TrainSettings
    synthesis: SynthesisSettings
    student: TrainSettings
    queries: QuerySettings | None


def resolve(config: ConfigDict, spec: DataSpec | None = None) -> Settings:
    """Checks a config and turns it into typed arguments.

    Args:
      config: As `default` makes it.
      spec: Of a user's own data, where a teacher has it already; None measures them. Others' is known by name.

    Raises:
      CakeError: A value that cannot work, named by its field.
    """
    section = config.dataset
    if spec is None or section.name in data.SPECS:
        spec = data.spec_of(section.name, data_dir=section.data_dir, image_size=section.image_size)
    given: dict[str, Any] = {name: tuple(map(float, section[name])) for name in ("mean", "std") if section[name]}
    spec = dataclasses.replace(spec, **given)
    method = methods.get(config.method)
    fields = {
        name: config.synthesis[name]
        for name in SynthesisSettings.__dataclass_fields__
        if name in config.synthesis and name != "weights"
    }
    own = config.methods[config.method].to_dict()
    fields = {name: own.get(name) if value is None else value for name, value in fields.items()}
    if fields["langevin_temperature"] is None:
        fields["langevin_temperature"] = 0.0
    common = SynthesisSettings(**fields, weights=Weights(**config.synthesis.weights))
    synthesis = method.settings(common, own, spec)
    loss = DistillationLoss(config.student.temperature, config.student.hard_weight)
    teacher, student = _train_settings(config.teacher), _train_settings(config.student, loss=loss)
    settings = Settings(spec, method, teacher, synthesis, student, _query_settings(config))
    for stage in ("teacher", "student"):
        check_training(getattr(settings, stage), spec, stage)
        models.create(config[stage].model.name, spec, config[stage].model.options)
    run = config.run
    answers = config.black_box.answers
    answered = {"": methods.ANSWERS, "labels": ("labels",)}.get(answers, ("labels", "scores"))
    if method.needs not in answered:
        fitting = (name for name, other in methods.METHODS.items() if other.needs in answered)
        raise CakeError(
            f"method: '{config.method}' needs the teacher's {method.needs}, and black_box.answers are {answers}; "
            f"take one of {', '.join(fitting)}"
        )
    if config.teacher.weights and config.teacher.from_run:
        raise CakeError("teacher.weights: a teacher comes from a file or from teacher.from_run, not from both")
    if not run.teacher and not brings_teacher(config) and (run.synthesis or run.evaluation):
        raise CakeError("run.teacher: off, so name a finished run in teacher.from_run, or a file in teacher.weights")
    if run.student and not run.synthesis and not config.synthesis.from_run:
        raise CakeError("run.synthesis: off, so name a finished run in synthesis.from_run")
    return settings


def brings_teacher(config: ConfigDict) -> bool:
    """Whether the teacher comes from elsewhere, so that none is trained."""
    return bool(config.teacher.from_run or config.teacher.weights or is_far(config))


def is_far(config: ConfigDict) -> bool:
    """Whether the teacher is behind an address or a function, and nothing of it at hand."""
    return bool(config.black_box.url or config.black_box.function)


def check_fields(config: ConfigDict) -> None:
    """Refuses a config that lacks a field of `default`; a file that starts from there lacks none.

    Raises:
      CakeError: With the first missing field.
    """
    missing = sorted(set(dict(_flat(default().to_dict()))) - set(dict(_flat(config.to_dict()))))
    missing = [name for name in missing if ".options." not in name and not name.startswith("methods.")]
    if missing:
        raise CakeError(f"config.{missing[0]}: missing; start the config file from cake_jax.config.default()")


# How a black box is reached, which does not change what it answers.
_FREE = (
    *(f"black_box.{name}" for name in ("budget", "url", "authorization", "timeout", "max_rows", "tries")),
    *(f"black_box.{name}" for name in ("rows_per_second", "requests_per_second")),
)


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Name of the first field in which two configs, as nested dicts, ask for other results; None where none does.

    Settings of a method that neither config runs are not among them.
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    others = {*old.get("methods", {}), *new["methods"]} - {old.get("method"), new["method"]}
    idle = tuple(f"methods.{name}." for name in others)
    names = sorted(name for name in before | after if name not in _FREE and not name.startswith(idle))
    return next((name for name in names if before.get(name) != after.get(name)), None)


def _training(validation_fraction: float) -> ConfigDict:
    section = ConfigDict()
    section.model = ConfigDict({"name": "mlp", "options": ConfigDict()})  # options: fields of the Flax module
    section.epochs = 30
    section.batch_size = 256
    section.learning_rate = 0.1
    section.optimizer = "sgd"  # sgd, adam or adamw
    section.schedule = "one_cycle"  # constant, one_cycle or multi_step
    section.momentum = 0.9
    section.weight_decay = 5e-4
    section.validation_fraction = validation_fraction
    section.augment = ()  # names in cake_jax.augment.NAMES, in order: ("crop", "flip")
    return section


def _query_settings(config: ConfigDict) -> QuerySettings | None:
    """Of `config.black_box`, where limits of 0 are none."""
    section = config.black_box
    if not section.answers:
        if is_far(config):
            raise CakeError("black_box.answers: say what the teacher answers, labels, scores or logits")
        return None
    if section.answers not in ANSWERS:
        raise CakeError(f"black_box.answers: '{section.answers}' is not one of {', '.join(ANSWERS)}")
    if section.budget <= 0:
        raise CakeError("black_box.budget: give the number of inputs that the teacher may be asked for in all")
    if section.url and section.function:
        raise CakeError("black_box.url: a teacher is behind an address or a function, not both")
    fields: dict[str, Any] = {name: section[name] for name in QuerySettings.__dataclass_fields__ if name in section}
    limits = {name: fields[name] or float("inf") for name in ("rows_per_second", "requests_per_second")}
    return QuerySettings(**{**fields, **limits})


def _train_settings(section: ConfigDict, **others: Any) -> TrainSettings:
    fields = {name: section[name] for name in TrainSettings.__dataclass_fields__ if name in section}
    return TrainSettings(**{**fields, "augment": tuple(section.augment)}, **others)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
