"""Rounds: a method makes its mini-batches one after another, each is stored, and a student that the method listens to
trains between them.

Rounds that need nothing of each other are made in any order, by several processes if there are several; those that do
are saved with their state, so that a stop costs the round at hand.
"""

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from cake_jax import checkpoint, models, parallel, train
from cake_jax.config import Settings
from cake_jax.methods import Round
from cake_jax.metrics import MetricsLog
from cake_jax.samples import SampleStore
from cake_jax.teachers import BlackBox, Queryable, Teacher
from cake_jax.types import CakeError, Examples, SampleBatch

# A state that was saved less than this ago is not saved again: making a few short rounds anew is cheaper.
_SAVE_SECONDS = 2.0
# So many students at most are kept, evenly over the rounds, to be judged when all is done.
_KEPT_STUDENTS = 20
# Keys folded in with these are no set's: sets are numbered from 0.
_INIT, _STUDENT = np.uint32(2**32 - 1), np.uint32(2**32 - 2)


def make(
    key: jax.Array,
    settings: Settings,
    student_model: tuple[str, dict[str, Any]],
    teacher: Queryable,
    store: SampleStore,
    folder: Path,
    log: MetricsLog,
    data: Examples | None = None,
) -> None:
    """Makes the samples that `store` lacks.

    Args:
      key: Of the whole synthesis.
      settings: Of the run.
      student_model: Name and options of the student's architecture, for a method that listens to one.
      teacher: The teacher.
      store: Where the samples go.
      folder: Where the state between rounds is kept, and students for a look back.
      log: Gets a line a round.
      data: Real training data, for a method that reads them.

    Raises:
      CakeError: Several processes are to make rounds that need one another, or whatever the method raises.
    """
    method, synthesis = settings.method, settings.synthesis
    state = method.init(jax.random.fold_in(key, _INIT), settings.spec, synthesis, data)
    listener = _Listener(key, settings, student_model, folder) if method.training else None
    if method.sequential:
        if jax.process_count() > 1:
            raise CakeError("method: its rounds need one another; run it in one process")
        start: Any = (np.zeros((), np.int32), state, listener.state if listener else ())
        saved_state = checkpoint.load_state(folder, start)
        whole = all(batch in store.entries for batch in range(int(saved_state[0])))
        rounds_done, state, student_state = saved_state if whole else start
        done = int(rounds_done)
        store.keep(lambda batch: batch < done)
        batches: Sequence[int] = range(done, synthesis.num_batches)
        if listener:
            listener.resume(student_state, store)
    else:
        batches = [batch for batch in range(synthesis.num_batches) if batch not in store.entries]
    if parallel.is_first():
        log.keep("synthesis", lambda batch: batch in store.entries)
    parallel.wait_for_all("synthesis begins")
    bar = tqdm(
        total=synthesis.num_batches * synthesis.batch_size,
        initial=store.count,
        desc="synthesis",
        unit=" samples",
        disable=None if parallel.is_first() else True,
    )

    def keep(batch: int, result: Round, figures: dict[str, float]) -> None:
        log.write("synthesis", batch, **figures)
        store.append(batch, result.samples, num_steps=synthesis.num_steps, queries=result.queries._asdict())
        bar.update(result.samples.num_samples)
        bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items() if name != "seconds"})

    # A mini-batch is written while the next is made; never more than one waits.
    saved, metered = time.perf_counter(), isinstance(teacher, BlackBox)
    with bar, ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: None)
        for batch in parallel.own_share(batches):
            started = time.perf_counter()
            result = method.next(key, state, teacher, listener.model if listener else None, synthesis, batch)
            state, figures = result.state, result.info._asdict()
            if listener:
                figures |= listener.hear(result.samples, batch)
            written.result()
            figures["seconds"] = time.perf_counter() - started
            written = writer.submit(keep, batch, result, figures)
            if method.sequential and (metered or time.perf_counter() - saved > _SAVE_SECONDS):
                written.result()
                rounds_done = np.asarray(batch + 1, np.int32)
                checkpoint.save_state(folder, batch + 1, (rounds_done, state, listener.state if listener else ()))
                saved = time.perf_counter()
        written.result()
    parallel.wait_for_all("synthesis ends")
    if parallel.is_first():
        checkpoint.drop_states(folder)


class _Listener:
    """A student that trains after each round on all samples so far.

    Attributes:
      state: Its training state.
    """

    def __init__(self, key: jax.Array, settings: Settings, model: tuple[str, dict[str, Any]], folder: Path) -> None:
        assert settings.method.training
        self.name, self.options = model
        self.spec, self.folder, self.rounds = settings.spec, folder, settings.synthesis.num_batches
        self.training = settings.method.training(settings.synthesis)
        self.module = models.create(self.name, self.spec, self.options)
        init_key, self.key = jax.random.split(jax.random.fold_in(key, _STUDENT))
        self.state = train.init(init_key, self.module, self.spec, self.training)
        count, size = self.rounds * settings.synthesis.batch_size, settings.synthesis.batch_size
        self.steps_per_call = max(1, size // self.training.batch_size)
        self.x = np.empty((count, *self.spec.shape), np.float32)
        self.logits = np.empty((count, self.spec.num_classes), np.float32)
        self.count = 0

    @property
    def model(self) -> Teacher:
        """The student as it is now."""
        return train.as_model(self.module, self.state, self.spec)

    def resume(self, state: train.TrainState, store: SampleStore) -> None:
        """Goes on from a saved state, with the samples that the store holds."""
        self.state = state
        for batch in store.entries:
            self._add(store.read(batch))

    def hear(self, samples: SampleBatch, batch: int) -> dict[str, float]:
        """Trains with the samples of round `batch` too; figures of the last epoch."""
        self._add(samples)
        training = dataclasses.replace(self.training, epochs=(batch + 1) * self.training.epochs)
        x, logits = self.x[: self.count], self.logits[: self.count]
        *_, (self.state, info) = train.epochs(
            self.key, self.state, self.module, self.spec, x, logits, training, steps_per_call=self.steps_per_call
        )
        if (batch + 1) % -(-self.rounds // _KEPT_STUDENTS) == 0:
            checkpoint.save_model(self.folder / f"{batch + 1:06d}", self.model, self.name, self.options)
        return {"student_loss": info.loss, "student_accuracy": info.accuracy}

    def _add(self, samples: SampleBatch) -> None:
        rows = slice(self.count, self.count + samples.num_samples)
        self.x[rows], self.logits[rows] = samples.x, samples.logits
        self.count = rows.stop


def kept_students(folder: Path) -> dict[int, Teacher]:
    """Students after some of the rounds, by the number of rounds done."""
    return {
        int(path.name): checkpoint.load_model(path)
        for path in sorted(folder.glob("[0-9]*"))
        if checkpoint.has_model(path)
    }
