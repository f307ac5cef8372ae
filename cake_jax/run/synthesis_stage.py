"""The synthesis of a run. It makes the rounds that the sample store lacks.

Rounds that do not depend on each other are made in any order, and by several processes. If rounds depend on each other,
the state is saved between rounds, so that a run can be resumed.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cake_jax import data, methods, parallel, random_keys, stopping
from cake_jax.methods.shared.guide_student import GuideStudent
from cake_jax.methods.shared.rounds import RoundResult, make_rounds
from cake_jax.run import repair, run_folder
from cake_jax.run.saves import Saves
from cake_jax.run.settings import RunSettings
from cake_jax.run.watch import Watch
from cake_jax.stores import checkpoint
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, Examples, Queryable

# Highest number of guide students that are kept, evenly over the rounds, besides the last one. The evaluation stage
# evaluates them.
_KEPT_STUDENTS = 20


def stored_samples(
    key: jax.Array, settings: RunSettings, workdir: Path, teacher: Queryable | None, log: MetricsLog, watch: Watch
) -> SampleStore:
    """The sample store of an earlier run, or that of this run after it is completed. The store may be empty."""
    if settings.samples.from_run:
        return earlier_samples(settings)
    rounds, num_batches = workdir / run_folder.ROUNDS, settings.samples.synthesis.num_batches
    store = repair.sound_samples(workdir / run_folder.SAMPLES, rounds)
    # A guide student is saved after the samples of its round. A kill between the two leaves samples without a student.
    kept = _kept_rounds(num_batches) if methods.get(settings.method).guide else []
    has_students = all(checkpoint.has_model(_student_folder(rounds, number)) for number in kept)
    is_complete = len(store.entries) == num_batches and has_students
    if not settings.stages.synthesis or teacher is None or is_complete:
        return store
    examples = None
    if methods.get(settings.method).reads_data:
        dataset = data.load(settings.data, settings.spec)
        examples = dataset.train_x, dataset.train_y
    make_samples(key, settings, teacher, store, rounds, log, examples, watch)
    return SampleStore(store.folder)


def earlier_samples(settings: RunSettings) -> SampleStore:
    """The sample store of the earlier run `samples.from_run`.

    Raises:
      CakeError: There are no samples, or they do not fit the run's inputs and classes.
    """
    source, spec = Path(settings.samples.from_run) / run_folder.SAMPLES, settings.spec
    if not source.exists():
        raise CakeError(f"synthesis.from_run: no samples in {source.parent}")
    store = SampleStore(source)
    for entry in store.entries.values():
        if (tuple(entry["shape"]), entry["num_classes"]) != (spec.shape, spec.num_classes):
            raise CakeError(
                f"synthesis.from_run: the samples in {source} have shape {tuple(entry['shape'])} and "
                f"{entry['num_classes']} classes, not {spec.shape} and {spec.num_classes}"
            )
    return store


def make_samples(
    key: jax.Array,
    settings: RunSettings,
    teacher: Queryable,
    store: SampleStore,
    rounds: Path,
    log: MetricsLog,
    examples: Examples | None = None,
    watch: Watch = Watch(),
) -> None:
    """Makes the samples that `store` lacks.

    Args:
      key: The key of the whole synthesis.
      settings: The run's settings.
      teacher: The teacher.
      store: The sample store, which gets the samples.
      rounds: Folder for the state between rounds and for guide students.
      log: The metrics, which get a line for each round.
      examples: Real training data, for a method that reads them.
      watch: What is shown and recorded meanwhile.

    Raises:
      CakeError: A sequential method runs in several processes, or the method fails.
      Stopped: This process has received SIGTERM. All samples that it has made are on the disk.
    """
    method, synthesis = methods.get(settings.method), settings.samples.synthesis
    state = method.init(random_keys.method_state(key), settings.spec, synthesis, examples)
    guide = None
    if method.guide:
        module = settings.student.model.create(settings.spec)
        guide_settings = method.guide(synthesis)
        guide = GuideStudent(key, module, settings.spec, guide_settings, synthesis.num_batches, synthesis.batch_size)
    if method.sequential:
        state, batches = _resume(state, guide, synthesis.num_batches, store, rounds)
    else:
        batches = [batch for batch in range(synthesis.num_batches) if batch not in store.entries]
    if parallel.is_first():
        log.keep("synthesis", lambda batch: batch in store.entries)
    parallel.wait_for_all("synthesis begins")
    progress = watch.progress("synthesis", "mini-batches", synthesis.num_batches, len(store.entries))
    shown = "student_accuracy" if guide else "target_accuracy"  # a method of a user may lack the latter

    def write(made: RoundResult, seconds: float) -> None:
        figures = {**made.figures, "seconds": seconds}
        log.write("synthesis", made.batch, **figures)
        samples, queries = made.round.samples, made.round.queries
        store.append(made.batch, samples, num_steps=synthesis.num_steps, queries=queries._asdict())
        # The other processes make as many mini-batches meanwhile.
        values = {shown: made.figures[shown]} if shown in made.figures else {}
        progress.update(values, jax.process_count())

    # A mini-batch is written while the next one is made. At most one waits.
    saves, is_metered = Saves(), teacher.queries is not None
    share = parallel.own_share(batches)
    results = make_rounds(key, method, synthesis, teacher, state, share, guide)
    with progress, ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: None)
        for made, seconds in watch.traced("synthesis", _timed(results), len(share)):
            written.result()
            written = writer.submit(write, made, seconds)
            if guide and made.batch + 1 in _kept_rounds(synthesis.num_batches):
                model, folder = settings.student.model, _student_folder(rounds, made.batch + 1)
                checkpoint.save_model(folder, guide.model, model.name, dict(model.options))
            stops = stopping.is_asked()
            if method.sequential and (stops or is_metered or saves.are_due()):
                written.result()
                with saves:
                    checkpoint.save_state(rounds, made.batch + 1, _saved(made.batch + 1, made.round.state, guide))
            if stops:
                written.result()
                raise stopping.Stopped
        written.result()
    parallel.wait_for_all("synthesis ends")
    if parallel.is_first():
        checkpoint.drop_states(rounds)


def _kept_rounds(num_batches: int) -> list[int]:
    """The numbers of rounds after which a guide student is kept."""
    apart = -(-num_batches // _KEPT_STUDENTS)
    return sorted({*range(apart, num_batches + 1, apart), num_batches})


def _student_folder(rounds: Path, number: int) -> Path:
    """The folder of the guide student that is kept after a number of rounds."""
    return rounds / f"{number:06d}"


def kept_students(rounds: Path) -> dict[int, Teacher]:
    """The kept guide students, by the number of rounds after which each was saved."""
    return {
        int(path.name): checkpoint.load_model(path)
        for path in sorted(rounds.glob("[0-9]*"))
        if checkpoint.has_model(path)
    }


def _resume(
    state: Any, guide: GuideStudent | None, num_batches: int, store: SampleStore, rounds: Path
) -> tuple[Any, Sequence[int]]:
    """The state to resume from, and the rounds to make. Samples of rounds after this state are deleted."""
    if jax.process_count() > 1:
        raise CakeError("method: its rounds depend on each other; run it in one process")
    start = _saved(0, state, guide)
    saved = repair.saved_state(rounds, start)
    is_whole = all(batch in store.entries for batch in range(int(saved[0])))
    rounds_done, state, student_state = saved if is_whole else start
    done = int(rounds_done)
    store.keep(lambda batch: batch < done)
    if guide:
        guide.resume(student_state, map(store.read, store.entries))
    return state, range(done, num_batches)


def _saved(rounds_done: int, state: Any, guide: GuideStudent | None) -> tuple[np.ndarray, Any, Any]:
    """The pytree that is saved between rounds."""
    return np.asarray(rounds_done, np.int32), state, guide.state if guide else ()


def _timed(results: Iterator[RoundResult]) -> Iterator[tuple[RoundResult, float]]:
    """Yields each round with the seconds that it took."""
    started = time.perf_counter()
    for made in results:
        yield made, time.perf_counter() - started
        started = time.perf_counter()
