"""One run: the stages in order, what they leave on disk, and how they go on after a stop.

Data takes one way through: config -> teacher -> samples -> student -> evaluation -> report. Every stage first looks at
what the run's folder holds, and does what is missing. Real data are read by the teacher's training and by the
evaluation, never while samples are made or the student trains.
"""

import contextlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cake_jax import checkpoint, data, models, parallel, report, results as results_lib, rounds, train
from cake_jax.config import Settings, brings_teacher, first_difference, is_far, resolve
from cake_jax.evaluation import evaluate
from cake_jax.files import write_atomically
from cake_jax.metrics import MetricsLog
from cake_jax.samples import SampleStore
from cake_jax.teachers import BlackBox, Endpoint, Queryable, Teacher, from_torch_weights
from cake_jax.types import CakeError, DataSpec, first_line

RESULTS = "results.json"
CONFIG = "config.json"
ROUNDS = "rounds"
# Epochs shorter than this are not saved one by one: a stop costs no more than this and the epoch at hand.
_SAVE_SECONDS = 2.0


class Run(NamedTuple):
    """What a run has left.

    Attributes:
      teacher: The teacher, or None.
      student: The student, or None.
      samples: The sample store; empty where no samples were made.
      results: The content of `results.json`, or None where the run is unfinished.
    """

    teacher: Teacher | None
    student: Teacher | None
    samples: SampleStore
    results: dict[str, Any] | None


def load(folder: str | Path) -> "Run | Teacher":
    """Loads a run, or one model.

    Args:
      folder: A run's folder, or its `teacher` or `student`.

    Returns:
      A `Run`, or a `Teacher` where the folder holds a model.

    Raises:
      CakeError: Neither is there, or it is damaged.
    """
    folder = Path(folder)
    if checkpoint.has_model(folder):
        return checkpoint.load_model(folder)
    if not (folder / CONFIG).exists():
        raise CakeError(f"{folder}: neither a run nor a model")
    teacher, student = (
        checkpoint.load_model(folder / name) if checkpoint.has_model(folder / name) else None
        for name in ("teacher", "student")
    )
    results = json.loads((folder / RESULTS).read_text()) if (folder / RESULTS).exists() else None
    return Run(teacher, student, SampleStore(folder / "samples"), results)


def run(
    config: ConfigDict, workdir: str | Path, *, config_name: str, variant: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Runs what a config says, or goes on with it.

    Args:
      config: A config as `cake_jax.config.default` makes it.
      workdir: The run's folder.
      config_name: For `results.json`.
      variant: For `results.json`.
      overwrite: Delete what another config has left in `workdir`.

    Returns:
      The content of `results.json`.

    Raises:
      CakeError: The config cannot work, `workdir` holds another run, or something in it is damaged.
    """
    workdir = Path(workdir)
    settings = resolve(config, _known_spec(config, workdir, overwrite))
    finished = (workdir / RESULTS).exists() and not overwrite
    trains_teacher = config.run.teacher and not brings_teacher(config) and not _has_teacher(workdir, overwrite)
    weights = config.teacher.weights
    if weights and not _has_teacher(workdir, overwrite) and not Path(weights).is_file():
        raise CakeError(f"teacher.weights: {weights} is no file")
    if not finished and (trains_teacher or config.run.evaluation):
        data.check(config.dataset.name, data_dir=config.dataset.data_dir)
    if parallel.is_first():
        _claim(workdir, config, overwrite)
    parallel.wait_for_all("claim")
    if finished:
        print(f"{workdir} holds the finished run of this config; nothing to do. See {workdir / 'report.html'}")
        return json.loads((workdir / RESULTS).read_text())
    log = MetricsLog(workdir / "metrics.jsonl")
    keys = dict(zip(("teacher", "synthesis", "student"), jax.random.split(jax.random.key(config.seed), 3), strict=True))

    # Teacher
    teacher = _teacher_stage(keys["teacher"], config, settings, workdir / "teacher", log)

    with _asked(config, settings, teacher, workdir) as asked:
        # Samples
        store = _synthesis_stage(keys["synthesis"], config, settings, workdir, asked, log)

        # Student
        student = _student_stage(keys["student"], config, settings, workdir / "student", store, log)

        # One process does the rest for all
        if not parallel.is_first():
            parallel.wait_for_all("results")
            return json.loads((workdir / RESULTS).read_text())

        # Evaluation on real data: the first look at the test set
        dataset = _load_data(config, settings.spec) if config.run.evaluation else None
        judge = asked if is_far(config) and config.black_box.evaluate else teacher
        figures = _evaluation(dataset, judge, student, workdir / ROUNDS) if dataset else {}

        # Results and report
        results = {
            "config_name": config_name,
            "variant": variant,
            **results_lib.collect(config, settings, teacher, student, store, figures, log),
            "ledger": {"queries": asked.queries} if isinstance(asked, BlackBox) else None,
        }
    report.write(workdir, results, log, teacher, student, store, dataset)
    write_atomically(workdir / RESULTS, json.dumps(results, indent=1).encode())
    parallel.wait_for_all("results")
    print(report.table(results))
    print(f"report: {workdir / 'report.html'}")
    return results


def _claim(workdir: Path, config: ConfigDict, overwrite: bool) -> None:
    """Makes the folder this config's own, or refuses."""
    path = workdir / CONFIG
    wanted = json.loads(config.to_json_best_effort())
    if overwrite and path.exists():
        shutil.rmtree(workdir)
    if path.exists():
        try:
            field = first_difference(json.loads(path.read_text()), wanted)
        except ValueError as error:
            raise CakeError(f"{path}: damaged; use another --workdir, or --overwrite") from error
        if field:
            raise CakeError(
                f"{workdir}: holds a run with another config, which differs in {field}; "
                "use another --workdir, or --overwrite"
            )
    elif workdir.exists() and any(other.name != f"{CONFIG}.tmp" for other in workdir.iterdir()):
        raise CakeError(f"{workdir}: is not empty and no run of ours; use another --workdir")
    content = json.dumps(wanted, indent=1).encode()
    if not path.exists() or path.read_bytes() != content:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _has_teacher(workdir: Path, overwrite: bool) -> bool:
    """Whether the run has a teacher that it will keep."""
    return checkpoint.has_model(workdir / "teacher") and not overwrite


def _known_spec(config: ConfigDict, workdir: Path, overwrite: bool) -> DataSpec | None:
    """The specification that the run's teacher carries, if there is one: a user's own data may have gone since."""
    if _has_teacher(workdir, overwrite):
        folder = workdir / "teacher"
    elif config.teacher.from_run:
        folder = _teacher_folder(config)
    else:
        return None
    return DataSpec.from_dict(checkpoint.model_info(folder)["spec"])


def _teacher_folder(config: ConfigDict) -> Path:
    """Where the teacher of an earlier run is: in the folder itself, or in its `teacher`."""
    source = Path(config.teacher.from_run)
    return source if checkpoint.has_model(source) else source / "teacher"


def _load_data(config: ConfigDict, spec: DataSpec) -> data.Dataset:
    section = config.dataset
    return data.load(
        section.name,
        data_dir=section.data_dir,
        image_size=section.image_size,
        max_train_examples=section.max_train_examples,
        spec=spec,
    )


def _teacher_stage(
    key: jax.Array, config: ConfigDict, settings: Settings, folder: Path, log: MetricsLog
) -> Teacher | None:
    model = config.teacher.model
    if checkpoint.has_model(folder):
        return checkpoint.load_model(folder)
    if config.teacher.from_run:
        source = _teacher_folder(config)
        teacher, about = checkpoint.load_model(source), checkpoint.model_info(source)["model"]
        if teacher.spec != settings.spec:
            raise CakeError(f"teacher.from_run: the teacher in {source} is of other data than {config.dataset.name}")
        checkpoint.save_model(folder, teacher, about["name"], about["options"])
        return teacher
    if config.teacher.weights:
        teacher = from_torch_weights(config.teacher.weights, model.name, settings.spec, model.options)
        checkpoint.save_model(folder, teacher, model.name, model.options.to_dict())
        return teacher
    if not config.run.teacher or is_far(config):
        return None
    dataset = _load_data(config, settings.spec)
    module = models.create(model.name, settings.spec, model.options)
    teacher = _fit(
        "teacher", key, module, settings.spec, dataset.train_x, dataset.train_y, settings.teacher, folder, log
    )
    checkpoint.save_model(folder, teacher, model.name, model.options.to_dict())
    return teacher


@contextlib.contextmanager
def _asked(
    config: ConfigDict, settings: Settings, teacher: Teacher | None, workdir: Path
) -> Iterator[Queryable | None]:
    """What the method is given for a teacher: the teacher itself, or a black box, which is closed in the end."""
    section = config.black_box
    if settings.queries is None or not config.run.synthesis or config.synthesis.from_run:
        yield teacher
        return
    if jax.process_count() > 1:
        raise CakeError("black_box: its ledger belongs to one process; run it in one")
    source: Any = teacher
    if section.url:
        headers = {}
        if section.authorization:
            if section.authorization not in os.environ:
                raise CakeError(f"black_box.authorization: there is no environment variable {section.authorization}")
            headers = {"Authorization": os.environ[section.authorization]}
        source = Endpoint(section.url, body=section.body, headers=headers, timeout=section.timeout)
    elif section.function:
        source = _function(section.function)
    black_box = BlackBox(source, settings.spec, settings.queries, section.ledger or workdir / "ledger.sqlite")
    with contextlib.closing(black_box):
        yield black_box


def _function(name: str) -> Any:
    """The function `module:name`."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CakeError(f"black_box.function: no function '{name}': {first_line(error)}") from error


def _synthesis_stage(
    key: jax.Array,
    config: ConfigDict,
    settings: Settings,
    workdir: Path,
    teacher: Queryable | None,
    log: MetricsLog,
) -> SampleStore:
    if config.synthesis.from_run:
        source = Path(config.synthesis.from_run)
        if not (source / "samples").exists():
            raise CakeError(f"synthesis.from_run: no samples in {source}")
        return SampleStore(source / "samples")
    store = SampleStore(workdir / "samples")
    if not config.run.synthesis or teacher is None or len(store.entries) == settings.synthesis.num_batches:
        return store
    dataset = _load_data(config, settings.spec) if settings.method.reads_data else None
    rounds.make(
        key,
        settings,
        (config.student.model.name, config.student.model.options.to_dict()),
        teacher,
        store,
        workdir / ROUNDS,
        log,
        dataset and (dataset.train_x, dataset.train_y),
    )
    return SampleStore(store.folder)


def _student_stage(
    key: jax.Array, config: ConfigDict, settings: Settings, folder: Path, store: SampleStore, log: MetricsLog
) -> Teacher | None:
    if not config.run.student:
        return None
    if checkpoint.has_model(folder):
        return checkpoint.load_model(folder)
    section = config.synthesis
    samples = store.select(
        min_step_size=section.min_step_size,
        max_step_size=section.max_step_size,
        memory_limit=config.student.memory_gb * 2**30,
    )
    model = config.student.model
    module = models.create(model.name, settings.spec, model.options)
    labels: Any = samples.logits
    if settings.method.reads_data:
        labels = train.HintonLabels(samples.logits, samples.target)
    student = _fit("student", key, module, settings.spec, samples.x, labels, settings.student, folder, log)
    checkpoint.save_model(folder, student, model.name, model.options.to_dict())
    return student


def _fit(
    stage: str,
    key: jax.Array,
    module: Any,
    spec: DataSpec,
    x: np.ndarray,
    labels: Any,
    settings: train.TrainSettings,
    folder: Path,
    log: MetricsLog,
) -> Teacher:
    """Trains a model epoch by epoch, from the newest saved state if there is one."""
    init_key, train_key = jax.random.split(key)
    start = checkpoint.load_state(folder, train.init(init_key, module, spec, settings))
    done = int(start.epoch)
    writes = parallel.is_first()
    if writes:
        log.keep(stage, lambda epoch: epoch <= done)
    with tqdm(total=settings.epochs, initial=done, desc=stage, unit=" epochs", disable=_no_bar()) as bar:
        state = start
        started = saved = time.perf_counter()
        for state, info in train.epochs(train_key, start, module, spec, x, labels, settings):
            seconds, started = time.perf_counter() - started, time.perf_counter()
            if writes:
                log.write(stage, info.epoch, **info._asdict(), seconds=seconds)
            if parallel.as_first(time.perf_counter() - saved > _SAVE_SECONDS):
                checkpoint.save_state(folder, info.epoch, state)
                saved = time.perf_counter()
            bar.update()
            bar.set_postfix(_short(info))
    return train.as_model(module, state, spec)


def _evaluation(
    dataset: data.Dataset, teacher: Queryable | None, student: Teacher | None, rounds_folder: Path
) -> dict[str, Any]:
    """Figures on the real test set, by model."""
    x, y = dataset.test_x, dataset.test_y
    figures: dict[str, Any] = {}
    if teacher is not None:
        figures["teacher"] = evaluate(teacher, None, x, y)
    if student is not None:
        figures["student"] = evaluate(student, teacher, x, y)
    figures["rounds"] = [
        {"round": number, **evaluate(model, teacher, x, y)}
        for number, model in rounds.kept_students(rounds_folder).items()
    ]
    return figures


def _no_bar() -> bool | None:
    """For `tqdm`: a bar on a terminal only, and of one process only."""
    return None if parallel.is_first() else True


def _short(info: Any) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in info._asdict().items() if isinstance(value, float)}
