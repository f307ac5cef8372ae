"""Made-up runs for tests of reports: models, samples, logs and results."""

import jax.numpy as jnp
import numpy as np

from cake_jax.data import Dataset
from cake_jax.evaluation import answers_to
from cake_jax.report import Record
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec, SampleBatch


def plane_model(weights):
    """A linear model of 2-dimensional inputs. `weights` is `[2, K]`."""
    weights = jnp.asarray(weights, jnp.float32)
    return from_function(lambda x: x @ weights, DataSpec((2,), weights.shape[1]))


def image_model(channels=1, **fields):
    """A model of images of 4 x 4 pixels with three classes. `fields` are those of its `DataSpec`."""
    spec = DataSpec((4, 4, channels), 3, **fields)
    return from_function(lambda x: x.reshape(len(x), -1)[:, :3], spec)


TEACHER = plane_model([[1.0, -1.0, 0.3], [0.2, 0.1, -1.0]])
STUDENT = plane_model([[1.0, 0.3, -1.0], [0.2, -1.0, 0.1]])
PLANE = TEACHER.spec


def samples(spec, sets=2, per_set=3, seed=0):
    rng, count = np.random.default_rng(seed), sets * per_set
    return SampleBatch(
        x=rng.normal(size=(count, *spec.shape)).astype(np.float32),
        logits=rng.normal(size=(count, spec.num_classes)).astype(np.float32),
        target=np.arange(count, dtype=np.int32) % spec.num_classes,
        step_size=np.full(count, 0.5, np.float32),
        set_index=np.repeat(np.arange(5, 5 + sets), per_set).astype(np.int32),
    )


def dataset(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 2)).astype(np.float32), rng.integers(0, 3, 20).astype(np.int32)
    return Dataset(PLANE, x, y, x, y)


def training_log(folder, stages=("teacher", "student"), epochs=3, validation=True, loss=0.5):
    log = MetricsLog(folder / "metrics.jsonl")
    for stage in stages:
        for epoch in range(1, epochs + 1):
            figures = {"loss": loss / epoch, "accuracy": 1 - 0.5 / epoch}
            held_out = {f"validation_{name}": value * 0.9 if validation else None for name, value in figures.items()}
            log.write(stage, epoch, epoch=epoch, **figures, **held_out, seconds=1.0)
    return log


def synthesis_log(folder, batches=3, gap=1.0):
    log = MetricsLog(folder / "metrics.jsonl")
    for batch in range(batches):
        info = {"step_size": 0.5**batch, "cls": 1.0 + batch, "contr": 0.1 * batch, "prior": 0.0, "entropy": 0.1}
        info |= {"target_accuracy": 0.9 - 0.1 * batch, "logit_gap_start": gap * (batch + 1), "logit_gap": 0.5}
        log.write("synthesis", batch, **info, seconds=0.1)
    return log


def guide_rounds(agreement=0.75):
    """`rounds` of `results.json`."""
    return [{"round": n, "test_accuracy": 0.5 + 0.1 * n, "test_agreement": agreement} for n in (1, 2, 3)]


def answers(teacher=TEACHER, student=STUDENT, count=60, seed=0):
    """The answers of two models on random inputs of random classes."""
    rng, spec = np.random.default_rng(seed), student.spec
    x = rng.normal(size=(count, *spec.shape)).astype(np.float32)
    y = rng.integers(0, spec.num_classes, count).astype(np.int32)
    return answers_to(student, teacher, x, y)


def record(
    folder, *, teacher=TEACHER, student=STUDENT, has_log=True, has_samples=True, data=None, content=None, answers=None
):
    """A run whose files are in `folder`. `content` is that of `results.json`, by default `results()`."""
    log, store = MetricsLog(folder / "metrics.jsonl"), SampleStore(folder / "samples")
    if has_log:
        training_log(folder)
        synthesis_log(folder)
    if has_samples:
        store.append(0, samples((teacher or student).spec if teacher or student else PLANE))
    return Record(folder, content or results(), log, teacher, student, store, data, answers)


def results(**changes):
    """The content of `results.json` of a run with all stages."""
    return {
        "config_name": "default",
        "variant": "",
        "method": "cake",
        "seed": 3,
        "teacher": {"test_accuracy": 0.9125, "num_params": 12345},
        "student": {
            "test_accuracy": 0.875,
            "test_agreement": 0.9375,
            "test_kl": 0.01234,
            "grid_agreement": None,
            "num_params": 942,
        },
        "samples": {"count": 2000, "num_steps": 250, "teacher_queries": 502000},
        "queries": {"synthesis": {"forward": 2000, "gradient": 500000}},
        "seconds": {"teacher": 1.25, "synthesis": 2.5, "student": 3.0, "total": 6.75},
        **changes,
    }


NOT_EVALUATED = {
    "teacher": dict.fromkeys(("test_accuracy", "num_params")),
    "student": dict.fromkeys(("test_accuracy", "test_agreement", "test_kl", "grid_agreement", "num_params")),
}
