"""Describes a run, and estimates its cost without running it."""

import dataclasses
import time

import jax
import numpy as np

from cake_jax import data, methods
from cake_jax.run.settings import ModelSettings, RunSettings
from cake_jax.teachers import Teacher
from cake_jax.training import Labels, Loss, TrainSettings, classification_loss, trainer

# The numbers of steps in the two timed trials of the synthesis, and in an epoch of a timed training.
_TRIAL_STEPS = (1, 5)
_TRAINING_STEPS = 32


def describe(settings: RunSettings) -> str:
    """Describes the stages: numbers of samples and queries, and estimated times on this machine's devices.

    The estimate times a few steps of each stage with made-up data and freshly initialised models.

    Args:
      settings: The run's settings.

    Returns:
      Lines of text.
    """
    lines = [f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, method {settings.method}"]
    stages, synthesis = settings.stages, settings.samples.synthesis
    match settings.teacher.source:
        case "run" | "weights":
            lines.append(f"teacher    from {settings.teacher.path}")
        case "query":
            lines.append("teacher    answers queries alone")
        case "training":
            teacher, size = settings.teacher, data.train_size(settings.data)
            lines.append(
                _training_line("teacher", teacher.model, settings, teacher.training, classification_loss, size)
            )
    if settings.samples.from_run:
        lines.append(f"synthesis  samples from {settings.samples.from_run}")
    elif stages.synthesis:
        seconds, queries = _cost_of_synthesis(settings)
        lines.append(
            f"synthesis  {synthesis.num_samples:,} samples ({synthesis.num_batches} x {synthesis.batch_size}), "
            f"{synthesis.num_steps} steps; teacher queries: {queries.gradient:,} gradient, "
            f"{queries.forward:,} forward; about {_time(seconds)}"
        )
    if stages.student:
        student = settings.student
        line = _training_line("student", student.model, settings, student.training, student.loss, synthesis.num_samples)
        lines.append(line)
    lines.append("evaluation on the real test set" if stages.evaluation else "no evaluation")
    return "\n".join(lines)


def _training_line(
    stage: str, model: ModelSettings, settings: RunSettings, how: TrainSettings, loss: Loss, size: int
) -> str:
    training = size - round(how.validation_fraction * size)
    steps = max(1, training // min(how.batch_size, training))
    spec, module = settings.spec, model.create(settings.spec)
    trial_steps = min(steps, _TRAINING_STEPS)
    rows = trial_steps * min(how.batch_size, training)
    x = np.zeros((rows, *spec.shape), np.float32)
    logits = None if stage == "teacher" else np.zeros((rows, spec.num_classes), np.float32)
    labels = Labels(np.zeros(rows, np.int32), logits)
    trial = dataclasses.replace(how, epochs=3, validation_fraction=0.0)
    key = jax.random.key(0)
    times = [time.perf_counter()]
    start = trainer.init(key, module, spec, trial)
    for _ in trainer.epochs(key, start, module, spec, x, labels, trial, loss=loss):
        times.append(time.perf_counter())
    seconds = min(np.diff(times)) / trial_steps * steps * how.epochs
    return f"{stage:<10} {model.name}, {how.epochs} epochs of {size:,} examples; about {_time(seconds)}"


def _cost_of_synthesis(settings: RunSettings) -> tuple[float, methods.Queries]:
    """Seconds and queries of all rounds. Both are linear in the number of steps, so two short trials suffice."""
    spec, key, method = settings.spec, jax.random.key(0), methods.get(settings.method)
    synthesis = settings.samples.synthesis
    shape = (synthesis.batch_size, *spec.shape)
    examples = (np.zeros(shape, np.float32), np.zeros(shape[0], np.int32)) if method.reads_data else None

    def fresh(model: ModelSettings) -> Teacher:
        module = model.create(spec)
        return trainer.as_model(module, trainer.init(key, module, spec, settings.teacher.training), spec)

    teacher = fresh(settings.teacher.model)
    student = fresh(settings.student.model) if method.guide else None
    trials = []
    for num_steps in sorted({min(steps, synthesis.num_steps) for steps in _TRIAL_STEPS}):
        trial = dataclasses.replace(synthesis, num_steps=num_steps)
        state, seconds = method.init(key, spec, trial, examples), []
        for batch in range(min(3, synthesis.num_batches)):
            started = time.perf_counter()
            result = method.make_round(key, state, teacher, student, trial, batch)
            seconds.append(time.perf_counter() - started)
        trials.append(np.array([num_steps, min(seconds), *result.queries]))
    first, last = trials[0], trials[-1]
    slope = (last - first) / (last[0] - first[0]) if len(trials) == 2 else np.zeros_like(last)
    total = synthesis.num_batches * (last + np.maximum(slope, 0.0) * (synthesis.num_steps - last[0]))
    return float(total[1]), methods.Queries(int(total[2]), int(total[3]))


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
