"""`resolve`: the only place where config fields become typed arguments."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cake_jax import checks, data, methods
from cake_jax.black_box import QuerySettings
from cake_jax.black_box.answer_kinds import KINDS
from cake_jax.config.baseline import noise_config
from cake_jax.config.fields import check_fields
from cake_jax.data import DataSettings
from cake_jax.data.source import NO_TRAINING_INPUTS
from cake_jax.methods.method import GuideSettings, within_budget
from cake_jax.run import run_folder
from cake_jax.run.run_folder import STUDENT, model_folder, saved_spec, saved_temperature
from cake_jax.run.settings import (
    BlackBoxSettings,
    ModelSettings,
    RunSettings,
    SamplesSettings,
    Stages,
    StudentSettings,
    TeacherSettings,
)
from cake_jax.stores import checkpoint, metrics
from cake_jax.stores.samples import SampleStore
from cake_jax.synthesis.priors import PRIORS
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.training import DistillationLoss, TrainSettings, ViewSettings, checked as checked_training, trainer
from cake_jax.training.views import checked as check_views
from cake_jax.types import CakeError, CakeWarning, DataSpec


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
    pixels: dict[str, Any] = {name: _numbers(f"dataset.{name}", config.dataset[name]) for name in ("mean", "std")}
    with warnings.catch_warnings():
        if all(pixels.values()):
            warnings.filterwarnings("ignore", f".*{NO_TRAINING_INPUTS}", CakeWarning)
        spec = data.spec_of(dataset, saved_spec(Path(workdir) if workdir else None, config.teacher.from_run))
    spec = dataclasses.replace(spec, **{name: values for name, values in pixels.items() if values})
    _check_mean(pixels["mean"], spec)
    black_box, stages = _black_box(config), Stages(**config.run)
    teacher, student = _teacher(config, black_box, spec), _student(config, spec)
    views = _views(config, student) if black_box else 0
    makes_samples = stages.synthesis and not config.synthesis.from_run
    left = None
    if black_box and makes_samples:
        left = run_folder.saved_budget(Path(workdir) if workdir else None, config.method)
        left = black_box.queries.budget - views if left is None else left
        if left < 1 and hasattr(method.settings, "budget"):
            raise _unpaid(black_box.queries.budget, config.synthesis.num_batches * config.synthesis.batch_size, views)
    _check_temperature(config.synthesis.from_run, config.teacher.temperature)
    samples = _samples(config, method, spec, left)
    if dataset.name == "none" and stages.evaluation:
        note = "dataset.name: none, so accuracy and agreement are not measured"
        if not any(pixels.values()) and not config.teacher.from_run:
            note += "; dataset.mean and dataset.std are empty, so the teacher gets inputs that are not normalised"
        warnings.warn(note, CakeWarning, stacklevel=2)
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
        metrics_writers=tuple(name for name in metrics.WRITERS if config.log[name]),
        profile=config.log.profile,
        document=_document(config, teacher, samples, student),
        baseline=None,
    )
    metrics.check(settings.metrics_writers)
    if makes_samples:
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
        _check_black_box(settings, black_box.queries.budget, views)
    if stages.baseline:
        settings = dataclasses.replace(settings, baseline=resolve(noise_config(config, settings), workdir))
    return settings


def _check_mean(mean: tuple[float, ...], spec: DataSpec) -> None:
    """Refuses a mean that the user gives in other units than those of the pixels."""
    if spec.low is not None and spec.high is not None and not all(spec.low <= value <= spec.high for value in mean):
        raise CakeError(
            f"dataset.mean: {mean} is outside of the pixels' range, {spec.low:g} to {spec.high:g}; divide dataset.mean "
            "and dataset.std by the highest pixel of the teacher's training, such as 255"
        )


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
    section = config.synthesis
    count = section.num_batches * section.batch_size
    if section.from_run:
        store = SampleStore(Path(section.from_run) / run_folder.SAMPLES)
        count = store.count_of(store.with_step_size(section.min_step_size, section.max_step_size))
    steps, batch_size = trainer.epoch_size(student.training, count)
    return student.training.epochs * steps * batch_size


def _check_temperature(samples: str, temperature: float) -> None:
    """Refuses samples of an earlier run whose logits are divided by another number than the teacher's."""
    if samples and (earlier := saved_temperature(Path(samples))) != temperature:
        raise CakeError(f"teacher.temperature: {temperature}, but the samples of {samples} have {earlier}")


def _check_black_box(settings: RunSettings, budget: int, views: int) -> None:
    """Refuses samples and views that the budget of a black box does not pay, and answers that no student can learn."""
    student, samples = settings.student, settings.samples
    loss = student.loss
    softens = loss.temperature != 1 and loss.hard_weight < 1
    if settings.stages.student and settings.access == "labels" and softens:
        raise CakeError(
            f"student.temperature: {loss.temperature} would soften the teacher's labels; set it to 1, or "
            "student.hard_weight to 1"
        )
    asks = settings.stages.student and student.views.ask
    if asks and student.views.adversary:
        raise CakeError("student.views.adversary: it needs the teacher's gradients, which a black box withholds; set 0")
    if asks and settings.access == "labels" and loss.distance != "kl":
        raise CakeError("student.distance: the teacher gives labels alone, which have no logits to compare; use kl")
    method = methods.get(settings.method)
    made = methods.total_queries(method, samples.synthesis, settings.access).forward if settings.makes_samples else 0
    if made + views > budget:
        raise _unpaid(budget, made, views)


def _unpaid(budget: int, made: int, views: int) -> CakeError:
    """The error of a budget that is less than the queries of samples and views."""
    parts = [f"the {made:,} of the samples"] * (made > 0) + [f"the {views:,} of the student's views"] * (views > 0)
    advice = "raise it, or lower synthesis.num_batches"
    if views:
        advice += " or student.epochs, or let the student learn from stored labels, as configs/digits.py:stored does"
    return CakeError(f"black_box.budget: {budget:,} queries are fewer than {' and '.join(parts)}; {advice}")


def _teacher(config: ConfigDict, black_box: BlackBoxSettings | None, spec: DataSpec) -> TeacherSettings:
    section = config.teacher
    if section.weights and section.from_run:
        raise CakeError("teacher.weights: a teacher comes from a file or from teacher.from_run, not from both")
    model = _model(section)
    model.create(spec)
    training = checked_training(_train_settings(section), spec, "teacher")
    checks.above_zero("teacher.temperature", section.temperature, finite=True)
    is_remote = black_box is not None and black_box.is_remote
    if is_remote and section.temperature != 1:
        raise CakeError(
            f"teacher.temperature: {section.temperature}, but an endpoint or a function answers as it is; set it to 1"
        )
    if section.from_run:
        return TeacherSettings("run", model, training, section.from_run, section.temperature)
    if section.weights:
        return TeacherSettings("weights", model, training, section.weights, section.temperature)
    if is_remote:
        return TeacherSettings("query", model, training)
    return TeacherSettings("training" if config.run.teacher else "none", model, training, "", section.temperature)


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
    given = method.settings(**{**common, **own})
    if budget is not None:
        given = within_budget(given, max(1, budget))
    synthesis = method.prepare(given, spec)
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
        about = checkpoint.model_info(folder)["model"]
        if checkpoint.model_spec(folder) != spec:
            raise CakeError(f"student.from_run: the student in {folder} was trained for other data")
        if ModelSettings(about["name"], about["options"]).create(spec) != model.create(spec):
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
