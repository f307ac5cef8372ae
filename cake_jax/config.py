"""The config: every field with its default, and `resolve`, the only place where fields become typed arguments.

Config files start from `default()` and change fields. Flags change single fields: `--config.synthesis.num_steps=64`.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from cake_jax import checks, data, methods
from cake_jax.black_box import QuerySettings
from cake_jax.black_box.answer_kinds import KINDS
from cake_jax.data import DataSettings
from cake_jax.methods.method import GuideSettings, own_fields
from cake_jax.run.run_folder import STUDENT, flat, model_folder, saved_spec
from cake_jax.run.settings import (
    BlackBoxSettings,
    ModelSettings,
    RunSettings,
    SamplesSettings,
    Stages,
    StudentSettings,
    TeacherSettings,
)
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import WRITERS
from cake_jax.synthesis.priors import PRIORS
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.training import DistillationLoss, TrainSettings, ViewSettings, checked as checked_training, trainer
from cake_jax.training.views import checked as check_views
from cake_jax.types import CakeError, CakeWarning, DataSpec


def default() -> ConfigDict:
    """A locked config with all fields. The defaults suit small images."""
    config = ConfigDict()
    config.seed = 0
    config.method = "cake"  # a name in cake_jax.methods.METHODS

    # Each method's own settings, in addition to config.synthesis. The method's file describes them.
    config.methods = ConfigDict({name: _own_defaults(method) for name, method in methods.METHODS.items()})

    # Stages, each on or off. If a later stage needs the result of a stage that is off, set from_run to an earlier run.
    config.run = ConfigDict(dataclasses.asdict(Stages()))

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # a name in cake_jax.data.SOURCES; none if there are no data
    # Without data: the shape of one input, such as (32, 32, 3), and the number of classes.
    config.dataset.shape = ()
    config.dataset.num_classes = 0
    # Folder of prepared TFDS data sets (empty for TFDS's default), folder of images, or an .npz file.
    config.dataset.data_dir = ""
    config.dataset.image_size = 0  # height and width to which images of `folder` are scaled; 0 if all have one size
    # File of the names of the classes of `folder`, one in each line, in the order of the teacher's outputs. If empty,
    # names that are all numbers are in the order of the numbers, and others in alphabetical order.
    config.dataset.class_names = ""
    config.dataset.max_train_examples = 0  # highest number of training examples; 0 for all
    # Mean and standard deviation of the pixels: one value for each channel, or one for all. Empty takes the data set's
    # own values. Weights that were trained elsewhere need the values of that training.
    config.dataset.mean = ()
    config.dataset.std = ()

    config.teacher = _training(validation_fraction=0.1)
    config.teacher.from_run = ""  # folder of a finished run whose teacher is used; then no teacher is trained
    config.teacher.weights = ""  # safetensors or PyTorch file of weights for teacher.model; then no teacher is trained

    # A teacher that only answers queries. Without url and function, the run's own teacher answers.
    config.black_box = ConfigDict()
    config.black_box.answers = ""  # labels, scores (probabilities) or logits; empty for a white box
    config.black_box.budget = 0  # highest number of charged queries in all; required
    config.black_box.url = ""  # address of an HTTP endpoint
    config.black_box.body = "json"  # json or npy
    config.black_box.authorization = ""  # environment variable that holds the value of the header Authorization
    config.black_box.timeout = 60.0  # seconds to wait without data from the server
    config.black_box.function = ""  # module:name of a function of pixels
    config.black_box.pixels = True  # whether a function or endpoint receives pixels; else normalised inputs
    config.black_box.max_rows = 256  # highest number of inputs in a request
    config.black_box.rows_per_second = 0.0  # highest number of inputs in a second; 0 for no limit
    config.black_box.requests_per_second = 0.0  # highest number of requests in a second; 0 for no limit
    config.black_box.tries = 6  # how often a request is sent before the run stops
    config.black_box.ledger = ""  # file of queries and answers; empty for ledger.sqlite in the run's folder
    # Whether an endpoint or function is queried for the test set too. These queries are charged.
    config.black_box.evaluate = False

    config.student = _training(validation_fraction=0.01)
    config.student.from_run = ""  # folder of a finished run whose student is trained further; it has student.model
    config.student.temperature = 1.0  # temperature tau of the soft labels
    config.student.hard_weight = 0.0  # weight of the cross entropy to the hard label
    config.student.distance = "kl"  # of the student's logits from the teacher's: kl, l1 or l2 (means over classes)
    # Views: inputs that the teacher labels anew in each step, after student.augment.
    config.student.views = ConfigDict()
    config.student.views.ask = False  # whether the teacher labels each batch; each input is a query
    config.student.views.fresh = ()  # names in cake_jax.starts.STARTS; each step draws new inputs from them
    config.student.views.fresh_share = 0.5  # share of a batch that is drawn anew
    config.student.views.mixup = 0.0  # share of the inputs that are mixed with another one
    config.student.views.cutmix = 0.0  # share of the images of which a rectangle comes from another one
    config.student.views.adversary = 0.0  # share of a batch that a generator makes, which learns against the student
    config.student.views.adversary_every = 5  # number of the student's steps for each step of that generator
    config.student.views.adversary_rate = 1e-3  # learning rate of that generator
    config.student.memory_gb = 4.0  # memory limit; samples above it are read from the disk during the training

    config.synthesis = ConfigDict()
    config.synthesis.num_batches = 10  # M, the number of mini-batches
    config.synthesis.batch_size = 500  # N, the number of samples in a mini-batch
    config.synthesis.num_groups = 10  # G, the number of samples in a set, all with different target classes
    config.synthesis.num_steps = 256  # T, the number of steps of a sample
    config.synthesis.step_size = 0.1  # step size of the first mini-batch
    config.synthesis.schedule = "linear"  # how log10(step size) changes over mini-batches: constant, linear or cosine
    config.synthesis.decay_magnitude = 4.0  # number of decades by which the step size falls
    config.synthesis.optimizer = "sgd"  # sgd or adam
    config.synthesis.langevin_temperature = config_dict.placeholder(float)  # T_L; None takes the method's value
    config.synthesis.clip = (
        False  # whether samples of CAKE, LAKE, naive and inversion stay in the valid range of pixels
    )
    config.synthesis.precision = "float32"  # precision of the teacher's arithmetic: float32 or bf16
    config.synthesis.start = "normal"  # a name in cake_jax.starts.STARTS; all but normal are for images
    config.synthesis.candidates = 1  # number of starts drawn for each sample; the teacher chooses one of its class
    config.synthesis.targets = "distinct"  # a name in cake_jax.synthesis.targets.TARGETS
    config.synthesis.contrastive = "mse"  # mse or snn
    config.synthesis.snn_temperature = 1.0  # temperature of snn, in squared logit units
    # Weights of the loss terms. Each data prior of cake_jax.synthesis.priors.PRIORS has its own weight.
    config.synthesis.weights = ConfigDict({"cls": 1.0, "contr": 1.0, **dict.fromkeys(PRIORS, 0.0), "entropy": 0.0})
    config.synthesis.sets_per_chunk = 0  # sets that take their steps together on a device; 0 chooses
    # The student trains on samples whose step size is in this range. Other samples are made, but not used.
    config.synthesis.min_step_size = config_dict.placeholder(float)
    config.synthesis.max_step_size = config_dict.placeholder(float)
    config.synthesis.from_run = ""  # folder of a finished run whose samples are used; then no samples are made

    # Metrics writers in addition to metrics.jsonl, each on or off.
    config.log = ConfigDict(dict.fromkeys(WRITERS, False))
    return config.lock()


def with_variant(config: ConfigDict, variant: str, variants: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """Applies a variant to a config.

    Args:
      config: The config without a variant. It is changed in place.
      variant: The text after the colon in `--config=file.py:variant`. Empty for none.
      variants: The fields that each variant changes, by its name: `{"smoke": {"synthesis.num_steps": 8}}`.

    Returns:
      `config`.

    Raises:
      CakeError: The variant is unknown.
    """
    if variant and variant not in variants:
        similar = checks.did_you_mean(variant, variants)
        raise CakeError(f"config: no variant '{variant}'; there are {', '.join(variants)}{similar}")
    config.update_from_flattened_dict(dict(variants.get(variant, {})))
    return config


def resolve(config: ConfigDict, workdir: str | Path | None = None) -> RunSettings:
    """Checks a config and turns it into typed arguments.

    Args:
      config: A config as `default` makes it.
      workdir: The run's folder, or None. If it holds a teacher, a user's own data get the teacher's specification,
        because the data may no longer exist.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    check_fields(config)
    if not 0 <= config.seed < 2**32:
        raise CakeError(f"seed: {config.seed} is not in [0, 2**32)")
    method = methods.get(config.method)
    dataset = DataSettings(**{f.name: _typed(config.dataset[f.name]) for f in dataclasses.fields(DataSettings)})
    spec = data.spec_of(dataset, saved_spec(Path(workdir) if workdir else None, config.teacher.from_run))
    pixels: dict[str, Any] = {name: _numbers(f"dataset.{name}", config.dataset[name]) for name in ("mean", "std")}
    spec = dataclasses.replace(spec, **{name: values for name, values in pixels.items() if values})
    black_box, stages = _black_box(config), Stages(**config.run)
    teacher, student = _teacher(config, black_box, spec), _student(config, spec)
    views = _views(config, student)
    samples = _samples(config, method, spec, black_box.queries.budget - views if black_box else None)
    if dataset.name == "none" and stages.evaluation:
        warnings.warn("dataset.name: none, so accuracy and agreement are not measured", CakeWarning, stacklevel=2)
        stages = dataclasses.replace(stages, evaluation=False)
    settings = RunSettings(
        seed=config.seed,
        method=config.method,
        data=dataset,
        spec=spec,
        stages=stages,
        teacher=teacher,
        black_box=black_box,
        samples=samples,
        student=student,
        metrics_writers=tuple(name for name in WRITERS if config.log[name]),
        document=_document(config, teacher, samples, student),
    )
    methods.check_access(config.method, settings.access)
    if dataset.name == "none":
        if settings.teacher.source == "training":
            raise CakeError(
                "teacher.weights: empty, and without data no teacher can be trained; name a file of weights, or set "
                "teacher.from_run"
            )
        if method.reads_data:
            raise CakeError(f"method: '{config.method}' needs data, and dataset.name is none")
    if settings.teacher.source == "none" and (stages.synthesis or stages.evaluation):
        raise CakeError("run.teacher: off, so name a finished run in teacher.from_run, or a file in teacher.weights")
    if stages.student and student.views.ask and settings.teacher.source == "none":
        raise CakeError("student.views.ask: the teacher must label the views, so name its run in teacher.from_run")
    if stages.student and not stages.synthesis and not settings.samples.from_run:
        raise CakeError("run.synthesis: off, so name a finished run in synthesis.from_run")
    if black_box:
        _check_budget(settings, black_box.queries.budget, views)
    return settings


def _document(
    config: ConfigDict, teacher: TeacherSettings, samples: SamplesSettings, student: StudentSettings
) -> dict[str, Any]:
    """The config as JSON values, with the learning rates and the budget of the method that other fields decide."""
    document = json.loads(config.to_json_best_effort())
    document["teacher"]["learning_rate"] = teacher.training.peak_rate
    document["student"]["learning_rate"] = student.training.peak_rate
    if hasattr(samples.synthesis, "budget"):
        document["methods"][config.method]["budget"] = samples.synthesis.budget
    return document


def _views(config: ConfigDict, student: StudentSettings) -> int:
    """The number of views that the teacher labels for the student, at most."""
    if not (config.run.student and student.views.ask):
        return 0
    count = config.synthesis.num_batches * config.synthesis.batch_size
    steps, batch_size = trainer.epoch_size(student.training, count)
    return student.training.epochs * steps * batch_size


def _check_budget(settings: RunSettings, budget: int, views: int) -> None:
    """Refuses samples and views that the budget of a black box does not pay, and views that it cannot label."""
    student, samples = settings.student, settings.samples
    asks = settings.stages.student and student.views.ask
    if asks and student.views.adversary:
        raise CakeError("student.views.adversary: it needs the teacher's gradients, which a black box withholds; set 0")
    if asks and settings.access == "labels" and student.loss.distance != "kl":
        raise CakeError("student.distance: the teacher gives labels alone, which have no logits to compare; use kl")
    is_made = settings.stages.synthesis and not samples.from_run
    method = methods.get(settings.method)
    made = methods.total_queries(method, samples.synthesis, settings.access).forward if is_made else 0
    if made + views > budget:
        advice = ", or let the student learn from stored labels, as configs/digits.py:stored does" if views else ""
        raise CakeError(
            f"black_box.budget: {budget:,} queries do not pay for {made:,} of the samples and {views:,} of the "
            f"student's views; raise it, lower synthesis.num_batches{' or student.epochs' if views else ''}{advice}"
        )


def check_fields(config: ConfigDict) -> None:
    """Refuses a config that lacks a field of `default`.

    Raises:
      CakeError: A field is missing. The message names the first one.
    """
    missing = sorted(set(dict(flat(default().to_dict()))) - set(dict(flat(config.to_dict()))))
    missing = [name for name in missing if ".options." not in name and not name.startswith("methods.")]
    if missing:
        raise CakeError(f"config.{missing[0]}: missing; start the config file from cake_jax.config.default()")


def _training(validation_fraction: float) -> ConfigDict:
    section = ConfigDict()
    section.model = ConfigDict({"name": "mlp", "options": ConfigDict()})  # options: fields of the Flax module
    section.epochs = 30
    section.batch_size = 256
    section.learning_rate = config_dict.placeholder(float)  # None: 0.1 for sgd, 1e-3 for adam and adamw
    section.optimizer = "sgd"  # sgd, adam or adamw
    section.schedule = "one_cycle"  # constant, one_cycle or multi_step
    section.momentum = 0.9
    section.precision = "float32"  # precision of the arithmetic: float32 or bf16; weights stay float32
    section.weight_decay = 5e-4
    section.validation_fraction = validation_fraction
    section.augment = ()  # names in cake_jax.augment.NAMES, in this order: ("crop", "flip")
    return section


def _own_defaults(method: methods.Method) -> dict[str, Any]:
    """The fields that the class of a method's settings declares, with their defaults."""
    defaults = {name: field.default for name, field in own_fields(method.settings).items()}
    return {name: vars(value) if isinstance(value, GuideSettings) else value for name, value in defaults.items()}


def _teacher(config: ConfigDict, black_box: BlackBoxSettings | None, spec: DataSpec) -> TeacherSettings:
    section = config.teacher
    if section.weights and section.from_run:
        raise CakeError("teacher.weights: a teacher comes from a file or from teacher.from_run, not from both")
    model = _model(section)
    model.create(spec)
    training = checked_training(_train_settings(section), spec, "teacher")
    if section.from_run:
        return TeacherSettings("run", model, training, section.from_run)
    if section.weights:
        return TeacherSettings("weights", model, training, section.weights)
    if black_box and black_box.is_remote:
        return TeacherSettings("query", model, training)
    return TeacherSettings("training" if config.run.teacher else "none", model, training)


def _black_box(config: ConfigDict) -> BlackBoxSettings | None:
    section = config.black_box
    if not section.answers:
        if section.url or section.function:
            raise CakeError("black_box.answers: empty; set it to the teacher's answers: labels, scores or logits")
        return None
    checks.one_of("black_box.answers", section.answers, KINDS)
    if section.budget <= 0:
        raise CakeError("black_box.budget: must be above 0; set it to the highest number of queries in all")
    if section.url and section.function:
        raise CakeError("black_box.url: a teacher is behind an address or a function, not both")
    fields: dict[str, Any] = {f.name: section[f.name] for f in dataclasses.fields(QuerySettings) if f.name in section}
    # A limit of 0 means no limit.
    limits = {name: fields[name] or float("inf") for name in ("rows_per_second", "requests_per_second")}
    others = {f.name: section[f.name] for f in dataclasses.fields(BlackBoxSettings) if f.name in section}
    return BlackBoxSettings(QuerySettings(**{**fields, **limits}), **others)


def _samples(config: ConfigDict, method: methods.Method, spec: DataSpec, budget: int | None) -> SamplesSettings:
    """The samples' settings. A method's own budget is at most `budget`, unless that is None."""
    section = config.synthesis
    common = {f.name: section[f.name] for f in dataclasses.fields(SynthesisSettings)}
    weights = section.weights.to_dict()
    priors = tuple((name, weights.pop(name)) for name in PRIORS if name != "tv")
    common["weights"] = Weights(**weights, priors=tuple((name, weight) for name, weight in priors if weight))
    own = {name: _typed(value) for name, value in config.methods[config.method].items()}
    # The method's own fields override config.synthesis, except for a Langevin temperature that config.synthesis sets.
    temperature = section.langevin_temperature
    if temperature is None:
        common["langevin_temperature"] = 0.0
    else:
        own.pop("langevin_temperature", None)
    if budget is not None and "budget" in own:
        own["budget"] = max(1, min(own["budget"], budget))
    synthesis = method.prepare(method.settings(**{**common, **own}), spec)
    return SamplesSettings(synthesis, section.from_run, section.min_step_size, section.max_step_size)


def _student(config: ConfigDict, spec: DataSpec) -> StudentSettings:
    section = config.student
    model = _model(section)
    model.create(spec)
    training = checked_training(_train_settings(section), spec, "student")
    loss = DistillationLoss(section.temperature, section.hard_weight, section.distance)
    fields = {f.name: _typed(section.views[f.name]) for f in dataclasses.fields(ViewSettings)}
    views = check_views(ViewSettings(**fields), spec)
    if section.from_run:
        folder = model_folder(section.from_run, STUDENT)
        about = checkpoint.model_info(folder)
        if DataSpec.from_dict(about["spec"]) != spec:
            raise CakeError(f"student.from_run: the student in {folder} was trained for other data")
        if ModelSettings(**about["model"]).create(spec) != model.create(spec):
            raise CakeError(f"student.from_run: {folder} holds another architecture; set student.model as in that run")
    return StudentSettings(model, training, loss, views, section.memory_gb * 2**30, section.from_run)


def _numbers(field: str, values: Any) -> tuple[float, ...]:
    """The values of a field that holds numbers.

    Raises:
      CakeError: A value is no number.
    """
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError):
        raise CakeError(f"{field}: {values!r} are not numbers; write (0.5,)") from None


def _model(section: ConfigDict) -> ModelSettings:
    return ModelSettings(section.model.name, section.model.options.to_dict())


def _train_settings(section: ConfigDict) -> TrainSettings:
    return TrainSettings(**{f.name: _typed(section[f.name]) for f in dataclasses.fields(TrainSettings)})


def _typed(value: Any) -> Any:
    """A field's value as a hashable argument. Flags and JSON make lists, which become tuples."""
    if isinstance(value, ConfigDict):
        return GuideSettings(**{name: _typed(entry) for name, entry in value.items()})
    return tuple(value) if isinstance(value, list) else value
