"""The student of a run, which is trained on samples alone."""

from pathlib import Path

import jax

from cake_jax import methods
from cake_jax.run import repair, run_folder
from cake_jax.run.fit import Task, fit
from cake_jax.run.settings import RunSettings
from cake_jax.run.watch import Watch
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher
from cake_jax.training import from_logits, views
from cake_jax.types import Queryable


def trained_student(
    key: jax.Array,
    settings: RunSettings,
    teacher: Queryable | None,
    target: Path,
    store: SampleStore,
    log: MetricsLog,
    watch: Watch,
) -> Teacher | None:
    """The student, trained on samples, and on views that the teacher labels if the settings say so.

    None if the student stage is off.
    """
    if not settings.stages.student:
        return None
    if (saved := repair.saved_model(target)) is not None:
        return saved
    student = settings.student
    samples = store.select(
        min_step_size=settings.samples.min_step_size,
        max_step_size=settings.samples.max_step_size,
        memory_limit=student.memory_bytes,
    )
    labels = from_logits(samples.logits)
    if methods.get(settings.method).reads_data:
        labels = labels._replace(classes=samples.target)
    asked = views.asked(student.views, student.training, settings.spec, teacher)
    start = None
    if student.from_run:
        start = checkpoint.load_model(run_folder.model_folder(student.from_run, run_folder.STUDENT)).variables
    task = Task(
        stage="student",
        model=student.model,
        spec=settings.spec,
        x=samples.x,
        labels=labels,
        settings=student.training,
        loss=student.loss,
        asked=asked,
        variables=start,
    )
    return fit(key, task, target, log, watch)
