"""Synthesis with any method, in memory: `cake_jax.synthesize`."""

from collections.abc import Callable, Iterator

import flax.linen as nn
from jax import Array

from cake_jax import checks, methods, models, random_keys
from cake_jax.arrays import as_classes, as_inputs
from cake_jax.methods.method import Round, with_method_defaults, within_budget
from cake_jax.methods.shared.guide_student import GuideStudent
from cake_jax.methods.shared.rounds import make_rounds
from cake_jax.synthesis import SynthesisSettings
from cake_jax.teachers import Teacher, as_queryable
from cake_jax.teachers.teacher import with_gradient
from cake_jax.types import ACCESS, CakeError, DataSpec, Examples, Queryable, SampleBatch, concatenate


def synthesize(
    key: Array,
    teacher: Queryable | Callable[[Array], Array],
    spec: DataSpec,
    settings: SynthesisSettings = SynthesisSettings(),
    *,
    method: str = "cake",
    guide: nn.Module | None = None,
    data: Examples | None = None,
) -> SampleBatch:
    """Makes a labelled synthetic data set from a teacher alone.

    Args:
      key: A `jax.random.key`.
      teacher: A `Teacher`, a `BlackBox`, or a differentiable function of normalised x `[B, *spec.shape]` to logits
        `[B, K]`.
      spec: Specification of the inputs.
      settings: Settings of the method's own class, such as `IdealSettings`, or plain `SynthesisSettings`. In plain
        settings, a field left at its default gets the method's default. A method's own budget is at most that of a
        `BlackBox`.
      method: A name in `methods.METHODS`.
      guide: Architecture of the guide student, for methods that have one. By default the MLP of `cake_jax.models`.
      data: Real training data, x `[N, *spec.shape]` and classes `[N]`, for the method `real`.

    Returns:
      `num_batches * batch_size` samples in host memory. `stream` yields one mini-batch at a time.

    Raises:
      CakeError: Settings or teacher do not fit `spec`, the method needs more access than the teacher gives, or a loss
        became NaN.
    """
    rounds = stream(key, teacher, spec, settings, method=method, guide=guide, data=data)
    return concatenate([result.samples for result in rounds])


def stream(
    key: Array,
    teacher: Queryable | Callable[[Array], Array],
    spec: DataSpec,
    settings: SynthesisSettings = SynthesisSettings(),
    *,
    method: str = "cake",
    guide: nn.Module | None = None,
    data: Examples | None = None,
) -> Iterator[Round]:
    """Yields the rounds of `synthesize` one at a time. Arguments and errors are the same.

    Without a guide student, memory does not grow with the number of rounds.
    """
    key = random_keys.as_key(key)
    checks.kind("spec", spec, DataSpec, "a DataSpec")
    chosen, is_function = methods.get(method), not hasattr(teacher, "predict")
    teacher = as_queryable(teacher, spec)
    needs_gradient = ACCESS.index(chosen.access) >= ACCESS.index("gradients")
    if is_function and needs_gradient and isinstance(teacher, Teacher):
        with_gradient(teacher)
    if (teacher.spec.shape, teacher.spec.num_classes) != (spec.shape, spec.num_classes):
        raise CakeError(f"spec: the teacher has inputs of shape {teacher.spec.shape}; pass teacher.spec")
    methods.check_access(method, teacher.access)
    if chosen.reads_data and data is None:
        raise CakeError(f"data: the method '{method}' needs real training data; pass x and classes")
    if data is not None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise CakeError(f"data: {checks.shown(data)} is not a pair of inputs and classes")
        x = as_inputs(data[0], spec, "data")
        data = x, as_classes(data[1], spec.num_classes, len(x), "data")
    own = with_method_defaults(chosen.settings, settings)
    if hasattr(teacher, "budget"):
        own = within_budget(own, teacher.budget)
    prepared = chosen.prepare(own, spec)
    state = chosen.init(random_keys.method_state(key), spec, prepared, data)
    student = None
    if chosen.guide:
        module = guide or models.create("mlp", spec)
        student = GuideStudent(key, module, spec, chosen.guide(prepared), prepared.num_batches, prepared.batch_size)
    for result in make_rounds(key, chosen, prepared, teacher, state, range(prepared.num_batches), student):
        yield result.round
