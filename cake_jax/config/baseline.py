"""The config of a run's baseline: a student that learns in the same way from noise."""

from pathlib import Path

from ml_collections import ConfigDict

from cake_jax import methods
from cake_jax.run import run_folder
from cake_jax.run.settings import RunSettings
from cake_jax.stores.samples import SampleStore
from cake_jax.training import trainer
from cake_jax.types import CakeError


def noise_config(config: ConfigDict, settings: RunSettings) -> ConfigDict:
    """The config of the baseline, whose settings get the run's teacher by `RunSettings.with_teacher_of`.

    It has the method `noise`, as many samples as the run, and the run's student and training. If the student asks the
    teacher, it learns for as many epochs as the run's evaluations of the teacher pay, where a gradient counts as three.
    A student of stored labels learns for as many epochs as in the run.

    Args:
      config: The run's config.
      settings: The run's settings, which `config` gives.

    Raises:
      CakeError: The run has no student, no teacher in JAX, or no data for the evaluation.
    """
    _check(settings)
    noise = config.copy_and_resolve_references()
    with noise.unlocked():
        noise.method = "noise"
        noise.run.update(baseline=False, teacher=True, synthesis=True)
        noise.log.wandb = False  # its run is that of the student
        source, count = noise.synthesis.from_run, noise.synthesis.num_batches * noise.synthesis.batch_size
        made = methods.total_queries(methods.get(settings.method), settings.samples.synthesis, settings.access)
        if source:
            store = SampleStore(Path(source) / run_folder.SAMPLES)
            batches = store.with_step_size(noise.synthesis.min_step_size, noise.synthesis.max_step_size)
            count, made = store.count_of(batches), methods.Queries(**store.totals())
            noise.synthesis.update(num_batches=len(batches), batch_size=count // len(batches))
        noise.synthesis.update(from_run="", candidates=1, min_step_size=None, max_step_size=None)
        noise.student.from_run = ""
        views, training = settings.student.views, settings.student.training
        if views.ask:
            steps, batch_size = trainer.epoch_size(training, count)
            epoch = methods.Queries(steps * batch_size, views.queries(steps, batch_size).get("gradient_queries", 0))
            paid = made.evaluations + training.epochs * epoch.evaluations - count
            noise.student.epochs = max(1, paid // epoch.forward)
            noise.student.views.update(fresh=("normal",) if views.fresh else (), adversary=0.0)
    return noise


def _check(settings: RunSettings) -> None:
    stages = settings.stages
    if not stages.student:
        raise CakeError("run.baseline: it is a student beside the run's, and run.student is off")
    if not stages.evaluation:
        raise CakeError("run.baseline: its student is measured on real data, and the run measures nothing")
    if settings.black_box:
        raise CakeError(
            "run.baseline: it would query the black box as often again; run the method noise instead, with a budget of "
            "its own"
        )
