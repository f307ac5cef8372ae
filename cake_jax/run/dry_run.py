"""Describes a run, and estimates its cost without running it.

Queries are counted exactly: each method declares them. Times are estimates. XLA counts the floating-point operations of
each network from its shapes, before it compiles. `speed` gives the operations that this machine does in a second. A
gradient with respect to the input costs as much as two answers, and a training step as much as three. So the estimate
leaves out compilation, augmentation, the samples' own arithmetic, and the time of a remote teacher.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cake_jax import cost, data, methods
from cake_jax.methods.shared import generator_training
from cake_jax.methods.shared.generator_training import GeneratorSettings
from cake_jax.models import modes
from cake_jax.models.generators import generate
from cake_jax.run import experiment, run_folder, speed
from cake_jax.run.settings import ModelSettings, RunSettings, TeacherSettings
from cake_jax.run.synthesis_stage import earlier_samples
from cake_jax.run.watch import duration
from cake_jax.stores import checkpoint
from cake_jax.synthesis.chunks import sets_per_chunk
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.teachers.batch_norm import check_has_statistics
from cake_jax.training import TrainSettings, ViewSettings, adversary, trainer
from cake_jax.training.views import STORED_LABELS
from cake_jax.types import ACCESS, DataSpec

# Answers to which an input gradient and a training step correspond.
_GRADIENT, _TRAINING = 2, 3
# Seconds of a step of the smallest networks, which no count of operations explains: in a training, and of a chunk of
# samples.
_TRAINING_STEP, _CHUNK_STEP = 3e-4, 5e-5
# Number of inputs for which operations are counted. XLA counts a few operations that do not depend on it.
_ROWS = 100


def describe(settings: RunSettings) -> str:
    """Describes the stages: numbers of samples and queries, and estimated times on this machine's devices.

    Args:
      settings: The run's settings.

    Returns:
      Lines of text.

    Raises:
      CakeError: Files that have to be counted are missing, or the method does not suit the teacher.
    """
    rate = speed.flops_per_second()
    lines = [
        f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, method {settings.method}; "
        f"times without compilation, at {rate / 1e9:.0f} GFLOP/s"
    ]
    if order := data.class_order(settings.data, settings.spec):
        lines.append(order)
    experiment.check_training_data(settings)
    experiment.check_models(settings)
    stages, synthesis = settings.stages, settings.samples.synthesis
    match settings.teacher.source:
        case "run" | "weights":
            lines.append(f"teacher    from {settings.teacher.path}")
        case "query":
            lines.append("teacher    answers queries alone")
        case "training":
            teacher, size = settings.teacher, data.train_size(settings.data)
            lines.append(_training_line("teacher", teacher.model, settings.spec, teacher.training, size, rate))
    if settings.samples.from_run:
        earlier_samples(settings)
        lines.append(f"synthesis  samples from {settings.samples.from_run}")
    elif stages.synthesis:
        queries = methods.total_queries(methods.get(settings.method), synthesis, settings.access)
        # Below gradients, methods work on the host too, and a remote teacher takes its own time.
        is_bound = ACCESS.index(methods.get(settings.method).access) < ACCESS.index("gradients")
        seconds = _synthesis_seconds(settings, queries, rate)
        lines.append(
            f"synthesis  {synthesis.num_samples:,} samples ({synthesis.num_batches} x {synthesis.batch_size}), "
            f"{synthesis.num_steps} steps; teacher queries: {queries.gradient:,} gradient, "
            f"{queries.forward:,} forward; {'at least' if is_bound else 'about'} {duration(seconds)}"
        )
    for stage, one in (("student", settings), ("baseline", settings.baseline)) if stages.student else ():
        if one is None:
            continue
        student, answer, size = one.student, 0.0, one.samples.synthesis.num_samples
        if one.samples.from_run:
            store = earlier_samples(one)
            size = store.count_of(store.with_step_size(one.samples.min_step_size, one.samples.max_step_size))
        if student.views.ask and settings.teacher.source != "query":
            answer = _answer_flops(_abstract(_teacher_model(settings.teacher), settings.spec))
        lines.append(
            _training_line(stage, student.model, settings.spec, student.training, size, rate, student.views, answer)
        )
    lines.append("evaluation on the real test set" if stages.evaluation else "no evaluation")
    return "\n".join(lines)


def _training_line(
    stage: str,
    model: ModelSettings,
    spec: DataSpec,
    how: TrainSettings,
    size: int,
    rate: float,
    views: ViewSettings = STORED_LABELS,
    answer: float = 0.0,
) -> str:
    """The line of a training. `answer` is the operations with which the teacher labels a view."""
    steps, batch_size = trainer.epoch_size(how, size)
    examples = how.epochs * steps * batch_size
    own = _answer_flops(_abstract(model, spec))
    flops, queries = examples * _TRAINING * own, ""
    if views.ask:
        gradient = how.epochs * views.queries(steps, batch_size).get("gradient_queries", 0)
        flops += (examples + _GRADIENT * gradient) * answer + _GRADIENT * gradient * own
        if views.adversary:
            made = views.adversary * examples + _TRAINING * gradient
            flops += made * _image_flops(adversary.module_of(spec), adversary.LATENT_SIZE)
        queries = f"; teacher queries: {f'{gradient:,} gradient, ' if gradient else ''}{examples:,} forward"
    seconds = flops / rate + how.epochs * steps * _TRAINING_STEP
    return f"{stage:<10} {model.name}, {how.epochs} epochs of {size:,} examples{queries}; about {duration(seconds)}"


def _synthesis_seconds(settings: RunSettings, queries: methods.Queries, rate: float) -> float:
    """The seconds that teacher, generator and guide student take in all rounds."""
    method, synthesis, spec = methods.get(settings.method), settings.samples.synthesis, settings.spec
    flops = seconds = 0.0
    teacher = None
    if settings.teacher.source != "query":
        teacher = _abstract(_teacher_model(settings.teacher), spec)
        flops += (queries.forward + _GRADIENT * queries.gradient) * _answer_flops(teacher)
        if method.access == "statistics":
            check_has_statistics(teacher)
    student_flops = _answer_flops(_abstract(settings.student.model, spec)) if method.guide else 0.0
    if isinstance(synthesis, GeneratorSettings):
        images, module = synthesis.total_steps * synthesis.batch_size, generator_training.module_of(synthesis, spec)
        flops += images * (_TRAINING * _image_flops(module, synthesis.latent_size) + _GRADIENT * student_flops)
        seconds += synthesis.total_steps * _TRAINING_STEP
    elif teacher:
        chunks = -(-synthesis.num_sets // (sets_per_chunk(teacher, synthesis) * jax.local_device_count()))
        seconds += synthesis.num_batches * synthesis.num_steps * chunks * _CHUNK_STEP
    if method.guide:
        guide, rounds = method.guide(synthesis), synthesis.num_batches
        # After round b, the pool has b + 1 mini-batches.
        examples = guide.epochs * synthesis.batch_size * rounds * (rounds + 1) // 2
        flops += _TRAINING * examples * student_flops
        seconds += examples / guide.batch_size * _TRAINING_STEP
    return seconds + flops / rate


def _teacher_model(settings: TeacherSettings) -> ModelSettings:
    """The teacher's architecture. An earlier run has saved it with the teacher."""
    if settings.source != "run":
        return settings.model
    about = checkpoint.model_info(run_folder.model_folder(settings.path, run_folder.TEACHER))["model"]
    return ModelSettings(about["name"], about["options"])


def _abstract(model: ModelSettings, spec: DataSpec) -> Teacher:
    """A model whose variables have shapes and types, but no values."""
    module = model.create(spec)
    return Teacher(modes.shapes(module, spec.shape), LinenApply(module), spec)


def _answer_flops(model: Teacher) -> float:
    """The operations of one answer."""
    return cost.flops(lambda model, x: model(x), model, _shape(model.spec.shape)) / _ROWS


def _image_flops(module: nn.Module, latent_size: int) -> float:
    """The operations with which a generator makes one input."""
    z = _shape((latent_size,))
    params = jax.eval_shape(lambda key, z: module.init(key, z)["params"], jax.random.key(0), z)
    return cost.flops(lambda params, z: generate(module, params, z), params, z) / _ROWS


def _shape(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((_ROWS, *shape), jnp.float32)
