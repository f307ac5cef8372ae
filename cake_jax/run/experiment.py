"""One run: its stages in order, and the files that they write.

The order is settings -> teacher -> samples -> student -> evaluation -> report. Each stage first checks which results
the run's folder holds, and makes those that are missing. Only the training of the teacher and the evaluation read real
data. The method `real` is the exception: it labels the real training data.
"""

import contextlib
import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax

from cake_jax import data, methods, parallel, random_keys, stopping
from cake_jax.evaluation import starts_agreement
from cake_jax.files import write_atomically
from cake_jax.run import results as results_lib, run_folder, warning_signs
from cake_jax.run.evaluation_stage import evaluate_models
from cake_jax.run.settings import RunSettings, StudentSettings, TeacherSettings
from cake_jax.run.student_stage import trained_student
from cake_jax.run.synthesis_stage import earlier_samples, stored_samples
from cake_jax.run.teacher_stage import opened_black_box, own_teacher
from cake_jax.run.watch import Watch
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import WRITERS, MetricsLog
from cake_jax.teachers import with_temperature
from cake_jax.training import trainer
from cake_jax.types import CakeError


def run(
    settings: RunSettings,
    workdir: str | Path,
    *,
    config_name: str,
    variant: str = "",
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs the stages that the settings choose, or resumes them.

    Args:
      settings: The settings.
      workdir: The run's folder.
      config_name: Name of the config, for `results.json`.
      variant: Variant of the config, for `results.json`.
      overwrite: Whether a run that `workdir` holds is deleted first.
      quiet: Whether neither progress nor results are printed. Warnings and the path of the report are.

    Returns:
      The content of `results.json`.

    Raises:
      CakeError: A value does not fit, `workdir` holds another run, another process works in it, or a file in it that
        cannot be made anew is damaged.
      Stopped: The process has received SIGTERM, and its work is saved.
    """
    workdir = Path(workdir)
    done = None if overwrite else run_folder.saved_results(workdir)
    if done is None:
        _check_sources(settings, has_teacher=checkpoint.has_model(workdir / run_folder.TEACHER) and not overwrite)
    with contextlib.ExitStack() as stack:
        goes_on = False
        if parallel.is_first():
            if done is None:
                stack.enter_context(run_folder.locked(workdir, settings.document, overwrite))
            goes_on = run_folder.claim(workdir, settings.document, overwrite)
        parallel.wait_for_all("claim")
        done = run_folder.saved_results(workdir)  # another process may have ended the run before this one had the lock
        if goes_on and done is None and not quiet:
            print(f"{workdir} holds an unfinished run of this config; it goes on where it stopped")
        if parallel.is_first() and not quiet and (order := data.class_order(settings.data, settings.spec)):
            print(order)
        if done is not None:
            print(f"{workdir} holds the finished run of this config; nothing to do. See {workdir / run_folder.REPORT}")
            return done
        writers = [WRITERS[name](workdir) for name in settings.metrics_writers]
        log = stack.enter_context(contextlib.closing(MetricsLog(workdir / run_folder.METRICS, writers)))
        watch = Watch(quiet, workdir / run_folder.TRACES if settings.profile else None)
        return _run_stages(settings, workdir, {"config_name": config_name, "variant": variant}, log, watch)


def _run_stages(
    settings: RunSettings, workdir: Path, names: dict[str, str], log: MetricsLog, watch: Watch
) -> dict[str, Any]:
    """Runs the stages in order, and writes results and report."""
    run_keys, num_classes = random_keys.run_keys(settings.seed), settings.spec.num_classes
    signs: list[str] = []

    def warn(found: list[str]) -> None:
        signs.extend(found)
        for sign in found if parallel.is_first() else ():
            print(f"warning: {sign}", file=sys.stderr)

    # Teacher
    teacher = own_teacher(run_keys.teacher, settings, workdir / run_folder.TEACHER, log, watch)
    teacher = teacher and with_temperature(teacher, settings.teacher.temperature)

    with opened_black_box(settings, teacher, workdir) as box:
        # Samples
        store = stored_samples(run_keys.synthesis, settings, workdir, box or teacher, log, watch)
        warn(warning_signs.of_samples(log, num_classes))
        stopping.stop_if_asked()

        # Student
        folder = workdir / run_folder.STUDENT
        student = trained_student(run_keys.student, settings, box or teacher, folder, store, log, watch)
        warn(warning_signs.of_student(log, num_classes))
        stopping.stop_if_asked()

        # Baseline: a run of its own within the folder
        of_noise = _baseline(settings, workdir, names, watch.quiet)

        # Only the first process evaluates and reports
        if not parallel.is_first():
            parallel.wait_for_all("results")
            return json.loads((workdir / run_folder.RESULTS).read_text())

        # Evaluation on real data: the first use of the test set
        dataset = data.load(settings.data, settings.spec) if settings.stages.evaluation else None
        judged = box if settings.judges_black_box else teacher
        figures, answers = (
            evaluate_models(dataset, judged, student, workdir / run_folder.ROUNDS) if dataset else ({}, None)
        )

        # Results and report
        collected = results_lib.collect(settings, teacher, student, store, figures, log, of_noise)
        of_teacher, of_student = collected["teacher"], collected["student"]
        warn(warning_signs.of_results(of_teacher["test_accuracy"], of_student["test_agreement"], num_classes))
        ledger = {"queries": box.queries} if box else None
        # The agreement without data takes seconds, so it is left out if there is a better one.
        is_measured = of_student["test_agreement"] is not None
        on_starts = None if box or is_measured else starts_agreement(student, teacher)
        results = {**names, **collected, "starts_agreement": on_starts, "ledger": ledger, "warnings": signs}
        both = (("teacher", of_teacher), ("student", of_student))
        measured = {f"{model}_{name}": value for model, values in both for name, value in values.items()}
        log.keep("evaluation", lambda step: False)
        log.write("evaluation", 0, **{name: value for name, value in measured.items() if isinstance(value, float)})
    # Matplotlib takes half a second to import, so it is imported after the stages.
    from cake_jax import report

    report.write(report.Record(workdir, results, log, teacher, student, store, dataset, answers))
    for path in sorted((workdir / run_folder.FIGURES).glob("*.png")):
        log.picture(path.stem, path)
    write_atomically(workdir / run_folder.RESULTS, json.dumps(results, indent=1).encode())
    parallel.wait_for_all("results")
    if not watch.quiet:
        print(report.summary(results))
    print(f"report: {workdir / run_folder.REPORT}")
    return results


def _baseline(settings: RunSettings, workdir: Path, names: dict[str, str], quiet: bool) -> dict[str, Any] | None:
    """The results of the baseline's run. None if the run has no baseline."""
    if settings.baseline is None:
        return None
    folder = workdir / run_folder.BASELINE
    done = run_folder.saved_results(folder)
    if done is not None:
        return done
    if parallel.is_first() and not quiet:
        print("baseline: a student of noise")
    of_noise = settings.baseline.with_teacher_of(workdir)
    return run(of_noise, folder, config_name=names["config_name"], variant=names["variant"], quiet=quiet)


def _check_sources(settings: RunSettings, *, has_teacher: bool) -> None:
    """Refuses a run whose files or data are missing or whose models cannot be trained, before anything is made.

    Raises:
      CakeError: A file, earlier samples or a data set is missing, or a model cannot be trained on its inputs.
    """
    if settings.teacher.source == "weights" and not has_teacher and not Path(settings.teacher.path).is_file():
        raise CakeError(f"teacher.weights: there is no file {settings.teacher.path}")
    check_training_data(settings, has_teacher=has_teacher)
    if settings.samples.from_run:
        earlier_samples(settings)
    check_models(settings, has_teacher=has_teacher)
    if settings.stages.evaluation:
        data.check(settings.data)


def check_training_data(settings: RunSettings, *, has_teacher: bool = False) -> None:
    """Refuses a run that needs training data and has none.

    Raises:
      CakeError: There are no data, or test data alone.
    """
    if settings.teacher.source == "training" and not has_teacher:
        mend = "no teacher can be trained on it; name a file in teacher.weights, or a run in teacher.from_run"
        data.check_training(settings.data, mend)
    if methods.get(settings.method).reads_data and settings.makes_samples:
        data.check_training(settings.data, f"the method '{settings.method}' has no images; choose another method")


def check_models(settings: RunSettings, *, has_teacher: bool = False) -> None:
    """Refuses a run that trains a model which cannot be trained on its inputs. Nothing is computed.

    Raises:
      CakeError: A model fails, as `trainer.init` describes it.
    """
    trained: dict[str, TeacherSettings | StudentSettings] = {}
    if settings.teacher.source == "training" and not has_teacher:
        trained["teacher"] = settings.teacher
    if settings.stages.student or (settings.makes_samples and methods.get(settings.method).guide):
        trained["student"] = settings.student
    for stage, one in trained.items():
        module = one.model.create(settings.spec)
        init = functools.partial(trainer.init, module=module, spec=settings.spec, settings=one.training)
        try:
            jax.eval_shape(init, jax.random.key(0))
        except CakeError as error:
            raise CakeError(f"{stage}.{error}") from error
