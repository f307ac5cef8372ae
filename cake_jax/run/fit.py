"""Training of one model of a run. It writes a line of metrics for each epoch, and saves its state."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from cake_jax import parallel, stopping
from cake_jax.run import repair
from cake_jax.run.saves import Saves
from cake_jax.run.settings import ModelSettings
from cake_jax.run.watch import Watch
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import MetricsLog
from cake_jax.teachers import Teacher
from cake_jax.training import Labels, Loss, TrainSettings, trainer
from cake_jax.types import DataSpec


class Task(NamedTuple):
    """The training of a stage: model, examples, settings and loss.

    Attributes:
      stage: `teacher` or `student`, for the log.
      model: The architecture.
      spec: Specification of the inputs.
      x: Inputs, `[N, *spec.shape]`, normalised.
      labels: Labels of the inputs.
      settings: How the model is trained.
      loss: The loss.
      asked: Options of `trainer.epochs` with which a teacher labels each batch. If there are any, the log counts the
        queries.
      variables: The module's variables before the first step. None for those of a new module.
    """

    stage: str
    model: ModelSettings
    spec: DataSpec
    x: np.ndarray
    labels: Labels
    settings: TrainSettings
    loss: Loss
    asked: Mapping[str, Any] = MappingProxyType({})
    variables: dict[str, Any] | None = None


def held_out(key: jax.Array, fraction: float, count: int) -> np.ndarray:
    """The numbers of the examples that `fit` holds out.

    Args:
      key: The key of the stage.
      fraction: The setting `validation_fraction`.
      count: Number of examples.
    """
    _, train_key = jax.random.split(key)
    return trainer.split(train_key, fraction, count)[0]


def fit(key: jax.Array, task: Task, folder: Path, log: MetricsLog, watch: Watch) -> Teacher:
    """Trains a model and saves it. If there is a saved state, the training resumes from the newest.

    Args:
      key: The key of the stage.
      task: The model, its data and its training.
      folder: The model's folder.
      log: The metrics, which get a line for each epoch.
      watch: What is shown and recorded meanwhile.

    Returns:
      The trained model.

    Raises:
      Stopped: A process of the run has received SIGTERM. The state is saved.
    """
    init_key, train_key = jax.random.split(key)
    spec, settings = task.spec, task.settings
    module = task.model.create(spec)
    first = trainer.init(init_key, module, spec, settings, task.variables, task.asked.get("make_batch"))
    start = repair.saved_state(folder, first)
    done = int(start.epoch)
    writes = parallel.is_first()
    if writes:
        log.keep(task.stage, lambda epoch: epoch <= done)
    with watch.progress(task.stage, "epochs", settings.epochs, done) as progress:
        state = start
        started, saves = time.perf_counter(), Saves()
        queries = {}
        if task.asked:
            queries = task.asked["make_batch"].settings.queries(*trainer.epoch_size(settings, len(task.x)))
        arrays = task.x, task.labels
        epochs = trainer.epochs(train_key, start, module, spec, *arrays, settings, loss=task.loss, **task.asked)
        for state, info in watch.traced(task.stage, epochs, settings.epochs - done):
            seconds, started = time.perf_counter() - started, time.perf_counter()
            if writes:
                log.write(task.stage, info.epoch, **info._asdict(), **queries, seconds=seconds)
            stops = parallel.in_any(stopping.is_asked())
            if stops or parallel.as_first(saves.are_due()):
                with saves:
                    checkpoint.save_state(folder, info.epoch, state)
            if stops:
                raise stopping.Stopped
            progress.update({"accuracy": info.accuracy, "loss": info.loss})
    trained = trainer.as_model(module, state, spec)
    checkpoint.save_model(folder, trained, task.model.name, dict(task.model.options))
    return trained
