"""One run: its stages in order, and what they leave on disk.

Data takes one way through: settings -> teacher -> samples -> student -> evaluation -> report. Every stage first looks
at what the run's folder holds, and does what is missing. Real data are read by the training of the teacher and by the
evaluation, never while samples are made or the student trains. The method `real` is the exception: it labels them.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax

from cake_jax import data, keys, methods, parallel, report
from cake_jax.evaluation import evaluate
from cake_jax.files import write_atomically
from cake_jax.run import black_box, folder, results as results_lib
from cake_jax.run.settings import RunSettings
from cake_jax.run.synthesis import kept_students, make_samples
from cake_jax.run.training import fit
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import WRITERS, MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher, from_torch_weights
from cake_jax.training import Labels, classification_loss, from_logits
from cake_jax.types import CakeError, Queryable


def run(
    settings: RunSettings, workdir: str | Path, *, config_name: str, variant: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Runs what the settings say, or goes on with it.

    Args:
      settings: The settings.
      workdir: The run's folder.
      config_name: Name of the config, for `results.json`.
      variant: Variant of the config, for `results.json`.
      overwrite: Whether the run of another config in `workdir` is deleted.

    Returns:
      The content of `results.json`.

    Raises:
      CakeError: The settings cannot work, `workdir` holds another run, or something in it is damaged.
    """
    workdir = Path(workdir)
    done = None if overwrite else folder.saved_results(workdir)
    if done is None:
        _check_sources(settings, has_teacher=checkpoint.has_model(workdir / folder.TEACHER) and not overwrite)
    if parallel.is_first():
        folder.claim(workdir, settings.document, overwrite)
    parallel.wait_for_all("claim")
    if done is not None:
        print(f"{workdir} holds the finished run of this config; nothing to do. See {workdir / folder.REPORT}")
        return done
    log = MetricsLog(workdir / folder.METRICS, [WRITERS[name](workdir) for name in settings.metrics_writers])
    with contextlib.closing(log):
        return _run_stages(settings, workdir, {"config_name": config_name, "variant": variant}, log)


def _run_stages(settings: RunSettings, workdir: Path, names: dict[str, str], log: MetricsLog) -> dict[str, Any]:
    """Runs the stages in order, and writes results and report."""
    run_keys = keys.run_keys(settings.seed)

    # Teacher
    teacher = _teacher(run_keys.teacher, settings, workdir / folder.TEACHER, log)

    with black_box.opened(settings, teacher, workdir) as box:
        # Samples
        store = _samples(run_keys.synthesis, settings, workdir, box or teacher, log)

        # Student
        student = _student(run_keys.student, settings, workdir / folder.STUDENT, store, log)

        # The first process does the rest for all
        if not parallel.is_first():
            parallel.wait_for_all("results")
            return json.loads((workdir / folder.RESULTS).read_text())

        # Evaluation on real data: the first look at the test set
        dataset = data.load(settings.data, settings.spec) if settings.stages.evaluation else None
        judged = box if settings.judges_black_box else teacher
        figures = _evaluation(dataset, judged, student, workdir / folder.ROUNDS) if dataset else {}

        # Results and report
        collected = results_lib.collect(settings, teacher, student, store, figures, log)
        results = {**names, **collected, "ledger": {"queries": box.queries} if box else None}
    report.write(report.Record(workdir, results, log, teacher, student, store, dataset))
    write_atomically(workdir / folder.RESULTS, json.dumps(results, indent=1).encode())
    parallel.wait_for_all("results")
    print(report.summary(results))
    print(f"report: {workdir / folder.REPORT}")
    return results


def _check_sources(settings: RunSettings, *, has_teacher: bool) -> None:
    """Refuses, before anything is made, a run whose files or data are missing.

    Raises:
      CakeError: With what is missing.
    """
    source = settings.teacher.source
    if source == "weights" and not has_teacher and not Path(settings.teacher.path).is_file():
        raise CakeError(f"teacher.weights: there is no file {settings.teacher.path}")
    if (source == "training" and not has_teacher) or settings.stages.evaluation:
        data.check(settings.data)


def _teacher(key: jax.Array, settings: RunSettings, target: Path, log: MetricsLog) -> Teacher | None:
    """The run's own teacher. None if there is none, or only a query interface."""
    source, model = settings.teacher, settings.teacher.model
    if checkpoint.has_model(target):
        return checkpoint.load_model(target)
    match source.source:
        case "training":
            dataset = data.load(settings.data, settings.spec)
            labels = Labels(dataset.train_y)
            return fit(
                "teacher",
                key,
                model,
                settings.spec,
                dataset.train_x,
                labels,
                source.training,
                classification_loss,
                target,
                log,
            )
        case "run":
            earlier = folder.teacher_folder(source.path)
            teacher, about = checkpoint.load_model(earlier), checkpoint.model_info(earlier)["model"]
            if teacher.spec != settings.spec:
                raise CakeError(
                    f"teacher.from_run: the teacher in {earlier} was trained on other data than {settings.data.name}"
                )
            checkpoint.save_model(target, teacher, about["name"], about["options"])
            return teacher
        case "weights":
            teacher = from_torch_weights(source.path, model.name, settings.spec, model.options)
            checkpoint.save_model(target, teacher, model.name, dict(model.options))
            return teacher
    return None


def _samples(
    key: jax.Array, settings: RunSettings, workdir: Path, teacher: Queryable | None, log: MetricsLog
) -> SampleStore:
    """The samples: of an earlier run, or made here. The store is empty if none are made."""
    if settings.samples.from_run:
        source = Path(settings.samples.from_run) / folder.SAMPLES
        if not source.exists():
            raise CakeError(f"synthesis.from_run: no samples in {source.parent}")
        return SampleStore(source)
    store = SampleStore(workdir / folder.SAMPLES)
    is_complete = len(store.entries) == settings.samples.synthesis.num_batches
    if not settings.stages.synthesis or teacher is None or is_complete:
        return store
    examples = None
    if methods.get(settings.method).reads_data:
        dataset = data.load(settings.data, settings.spec)
        examples = dataset.train_x, dataset.train_y
    make_samples(key, settings, teacher, store, workdir / folder.ROUNDS, log, examples)
    return SampleStore(store.folder)


def _student(
    key: jax.Array, settings: RunSettings, target: Path, store: SampleStore, log: MetricsLog
) -> Teacher | None:
    """The student, trained on samples alone. None if that stage is off."""
    if not settings.stages.student:
        return None
    if checkpoint.has_model(target):
        return checkpoint.load_model(target)
    student = settings.student
    samples = store.select(
        min_step_size=settings.samples.min_step_size,
        max_step_size=settings.samples.max_step_size,
        memory_limit=student.memory_bytes,
    )
    labels = from_logits(samples.logits)
    if methods.get(settings.method).reads_data:
        labels = labels._replace(classes=samples.target)
    return fit(
        "student", key, student.model, settings.spec, samples.x, labels, student.training, student.loss, target, log
    )


def _evaluation(
    dataset: data.Dataset, teacher: Queryable | None, student: Teacher | None, rounds: Path
) -> dict[str, Any]:
    """Figures on the real test set: of the teacher, of the student, and of the guide students that were kept."""
    x, y = dataset.test_x, dataset.test_y
    figures: dict[str, Any] = {}
    if teacher is not None:
        figures["teacher"] = evaluate(teacher, None, x, y)
    if student is not None:
        figures["student"] = evaluate(student, teacher, x, y)
    figures["rounds"] = [
        {"round": number, **evaluate(model, teacher, x, y)} for number, model in kept_students(rounds).items()
    ]
    return figures
