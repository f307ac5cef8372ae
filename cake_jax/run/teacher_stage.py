"""The teacher of a run, and the black box through which it is queried."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from cake_jax import data
from cake_jax.black_box import BlackBox, Endpoint
from cake_jax.run import repair, run_folder
from cake_jax.run.fit import Task, fit
from cake_jax.run.settings import BlackBoxSettings, RunSettings
from cake_jax.run.watch import Watch
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import MetricsLog
from cake_jax.teachers import Teacher, from_torch_weights
from cake_jax.training import Labels, classification_loss
from cake_jax.types import CakeError, first_line


def own_teacher(key: jax.Array, settings: RunSettings, target: Path, log: MetricsLog, watch: Watch) -> Teacher | None:
    """The run's own teacher. None if there is no teacher, or if it only answers queries."""
    source, model = settings.teacher, settings.teacher.model
    if (saved := repair.saved_model(target)) is not None:
        return saved
    match source.source:
        case "training":
            dataset = data.load(settings.data, settings.spec)
            task = Task(
                stage="teacher",
                model=model,
                spec=settings.spec,
                x=dataset.train_x,
                labels=Labels(dataset.train_y),
                settings=source.training,
                loss=classification_loss,
            )
            return fit(key, task, target, log, watch)
        case "run":
            earlier = run_folder.model_folder(source.path, run_folder.TEACHER)
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


@contextlib.contextmanager
def opened_black_box(settings: RunSettings, teacher: Teacher | None, workdir: Path) -> Iterator[BlackBox | None]:
    """Opens the black box, and closes it in the end.

    Args:
      settings: The run's settings.
      teacher: The run's own teacher, which answers if there is neither an endpoint nor a function.
      workdir: The run's folder, which holds the ledger.

    Yields:
      The black box. None if the run queries none.

    Raises:
      CakeError: The endpoint, the function or the ledger cannot be used, or there are several processes.
    """
    black_box = settings.black_box
    if black_box is None or not settings.needs_black_box:
        yield None
        return
    if jax.process_count() > 1:
        raise CakeError("black_box: its ledger belongs to one process; start the run in one process")
    ledger = black_box.ledger or workdir / "ledger.sqlite"
    with contextlib.closing(BlackBox(_source(black_box, teacher), settings.spec, black_box.queries, ledger)) as box:
        yield box


def _source(black_box: BlackBoxSettings, teacher: Teacher | None) -> Any:
    if black_box.url:
        headers = {}
        if black_box.authorization:
            if black_box.authorization not in os.environ:
                raise CakeError(f"black_box.authorization: there is no environment variable {black_box.authorization}")
            headers = {"Authorization": os.environ[black_box.authorization]}
        return Endpoint(black_box.url, body=black_box.body, headers=headers, timeout=black_box.timeout)
    return _function(black_box.function) if black_box.function else teacher


def _function(name: str) -> Callable[..., Any]:
    """The function `module:name`. The module may be in the current folder."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CakeError(f"black_box.function: no function '{name}': {first_line(error)}") from error
