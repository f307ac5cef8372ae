"""What a run would do and cost, found out without doing it."""

import dataclasses
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from cake_jax import data, methods, models, train
from cake_jax.config import Settings, brings_teacher, resolve
from cake_jax.synthesis_settings import SynthesisSettings
from cake_jax.teachers import Teacher

_TRIAL_STEPS = (1, 5)
_TRAINING_STEPS = 32


def describe(config: ConfigDict) -> str:
    """Stages, sample and query counts, and an estimate of the time on the devices at hand.

    The estimate times a few steps of each stage on made-up data with freshly initialised models.

    Args:
      config: The config.

    Returns:
      Lines of text.

    Raises:
      CakeError: The config cannot work.
    """
    settings = resolve(config)
    lines = [f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, method {config.method}"]
    dataset = config.dataset
    size = data.train_size(dataset.name, dataset.max_train_examples, data_dir=dataset.data_dir)
    if brings_teacher(config):
        lines.append(f"teacher    from {config.teacher.from_run or config.teacher.weights}")
    elif config.run.teacher:
        lines.append(_training_line("teacher", config, settings, settings.teacher, size))
    synthesis = settings.synthesis
    samples = synthesis.num_batches * synthesis.batch_size
    if config.synthesis.from_run:
        lines.append(f"synthesis  samples from {config.synthesis.from_run}")
    elif config.run.synthesis:
        seconds, queries = _cost_of_synthesis(config, settings, synthesis)
        lines.append(
            f"synthesis  {samples:,} samples ({synthesis.num_batches} x {synthesis.batch_size}), "
            f"{synthesis.num_steps} steps; teacher queries: {queries.gradient:,} gradient, "
            f"{queries.forward:,} forward; about {_time(seconds)}"
        )
    if config.run.student:
        lines.append(_training_line("student", config, settings, settings.student, samples))
    lines.append("evaluation on the real test set" if config.run.evaluation else "no evaluation")
    return "\n".join(lines)


def _training_line(stage: str, config: ConfigDict, settings: Settings, how: train.TrainSettings, size: int) -> str:
    training = size - round(how.validation_fraction * size)
    steps = max(1, training // min(how.batch_size, training))
    spec, model = settings.spec, config[stage].model
    module = models.create(model.name, spec, model.options)
    trial_steps = min(steps, _TRAINING_STEPS)
    rows = trial_steps * min(how.batch_size, training)
    x = np.zeros((rows, *spec.shape), np.float32)
    labels = np.zeros(rows, np.int32) if stage == "teacher" else np.zeros((rows, spec.num_classes), np.float32)
    trial = dataclasses.replace(how, epochs=3, validation_fraction=0.0)
    key = jax.random.key(0)
    times = [time.perf_counter()]
    for _ in train.epochs(key, train.init(key, module, spec, trial), module, spec, x, labels, trial):
        times.append(time.perf_counter())
    seconds = min(np.diff(times)) / trial_steps * steps * how.epochs
    return f"{stage:<10} {model.name}, {how.epochs} epochs of {size:,} examples; about {_time(seconds)}"


def _cost_of_synthesis(
    config: ConfigDict, settings: Settings, synthesis: SynthesisSettings
) -> tuple[float, methods.Queries]:
    """Seconds and queries of all rounds, from two trials of a few steps: both grow evenly with the steps."""
    spec, key, method = settings.spec, jax.random.key(0), settings.method
    shape = (synthesis.batch_size, *spec.shape)
    examples = (np.zeros(shape, np.float32), np.zeros(shape[0], np.int32)) if method.reads_data else None

    def fresh(model: ConfigDict) -> Teacher:
        module = models.create(model.name, spec, model.options)
        return train.as_model(module, train.init(key, module, spec, settings.teacher), spec)

    teacher, student = fresh(config.teacher.model), fresh(config.student.model) if method.training else None
    trials = []
    for num_steps in sorted({min(steps, synthesis.num_steps) for steps in _TRIAL_STEPS}):
        trial = dataclasses.replace(synthesis, num_steps=num_steps)
        state, seconds = method.init(key, spec, trial, examples), []
        for batch in range(min(3, synthesis.num_batches)):
            started = time.perf_counter()
            result = method.next(key, state, teacher, student, trial, batch)
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
