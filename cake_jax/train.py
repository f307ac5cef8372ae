"""One Optax trainer for teacher and student alike: `init` and `epochs` over a `TrainState`."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from cake_jax import losses, parallel, schedules
from cake_jax.augment import augment, check as check_augmentation
from cake_jax.evaluation import predict
from cake_jax.models.nnx_module import NNXModule, split
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.types import CakeError, DataSpec, SampleBatch, first_line

OPTIMIZERS = ("sgd", "adam", "adamw")
# The host hands over this many bytes of inputs a device call: long scans, bounded memory, data of any size.
_CALL_BYTES = 64 * 2**20


class HintonLabels(NamedTuple):
    """Labels of examples whose class is known besides.

    Attributes:
      logits: The teacher's, `[N, K]`.
      classes: `[N]` int, the hard labels in place of the teacher's argmax.
    """

    logits: Any
    classes: Any


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """Hinton's loss of the student's logits, given the teacher's; see `losses.distillation`.

    Attributes:
      temperature: tau.
      hard_weight: Weight of the cross entropy to the hard label.
    """

    temperature: float = 1.0
    hard_weight: float = 0.0

    def __call__(self, logits: Array, labels: Any) -> Array:
        """Nats, `[B]`, of student logits `[B, K]` and teacher logits `[B, K]` or `HintonLabels`."""
        if not isinstance(labels, HintonLabels):
            labels = HintonLabels(labels, jnp.argmax(labels, axis=-1))
        return losses.distillation(logits, *labels, temperature=self.temperature, hard_weight=self.hard_weight)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a model is trained. Hashable.

    Attributes:
      epochs: Passes over the data.
      batch_size: Examples a step, over all devices; a smaller data set is one batch.
      learning_rate: The highest.
      optimizer: `sgd` (with momentum), `adam` or `adamw`.
      schedule: `constant`, `one_cycle` or `multi_step`, a value a step.
      momentum: Of SGD.
      weight_decay: L2 on all parameters; for AdamW its decoupled decay.
      validation_fraction: Share of the data held out, to choose settings by.
      loss: `(logits [B, K], labels) -> [B]`; labels are classes `[B]` for a teacher, logits `[B, K]` or `HintonLabels`
        for a student. On
        classes a module with a method `class_loss`, such as a support vector machine, is trained by that instead.
      augment: Names in `cake_jax.augment.NAMES`, in order, of what is done to each training image anew in every epoch.
        A student's labels stay the teacher's logits of the image as it was: the student learns to answer alike for
        both, which is right only where the teacher would.
    """

    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    schedule: str = "one_cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    validation_fraction: float = 0.1
    loss: Callable[[Array, Array], Array] = losses.cross_entropy
    augment: tuple[str, ...] = ()


# What a student is trained with by default: soft labels, a hundredth of the samples held out.
DISTILLATION = TrainSettings(loss=DistillationLoss(), validation_fraction=0.01)

Module = nn.Module | NNXModule


class TrainState(NamedTuple):
    """State of the training between two epochs; a pytree of arrays.

    Attributes:
      params: The module's parameters.
      model_state: Its other collections, such as `batch_stats`.
      opt_state: State of the Optax transformation.
      epoch: Epochs done, scalar int32.
    """

    params: Any
    model_state: Any
    opt_state: optax.OptState
    epoch: Array


class EpochInfo(NamedTuple):
    """Figures of one epoch.

    Attributes:
      epoch: Number of epochs done.
      loss: Mean loss over the training steps, nats.
      accuracy: Share of the training examples, as augmented, with the right argmax, while training.
      validation_loss: On the held-out examples, after the epoch; None where there are none.
      validation_accuracy: Likewise.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


def check(settings: TrainSettings, spec: DataSpec, stage: str) -> None:
    """Refuses settings that cannot work on inputs of `spec`; `stage` names them in the message.

    Raises:
      CakeError: With the field at fault and the mend.
    """
    for name in ("epochs", "batch_size", "learning_rate"):
        if getattr(settings, name) <= 0:
            raise CakeError(f"{stage}.{name}: {getattr(settings, name)} must be above 0")
    if settings.optimizer not in OPTIMIZERS:
        raise CakeError(f"{stage}.optimizer: '{settings.optimizer}' is not one of {', '.join(OPTIMIZERS)}")
    if settings.schedule not in schedules.TRAINING_SCHEDULES:
        raise CakeError(
            f"{stage}.schedule: '{settings.schedule}' is not one of {', '.join(schedules.TRAINING_SCHEDULES)}"
        )
    if not 0 <= settings.validation_fraction < 1:
        raise CakeError(f"{stage}.validation_fraction: {settings.validation_fraction} is not in [0, 1)")
    if isinstance(settings.loss, DistillationLoss):
        if settings.loss.temperature <= 0:
            raise CakeError(f"{stage}.temperature: {settings.loss.temperature} must be above 0")
        if not 0 <= settings.loss.hard_weight <= 1:
            raise CakeError(f"{stage}.hard_weight: {settings.loss.hard_weight} is not in [0, 1]")
    check_augmentation(settings.augment, spec, f"{stage}.augment")


def init(
    key: Array, module: Module, spec: DataSpec, settings: TrainSettings, variables: dict[str, Any] | None = None
) -> TrainState:
    """A training state before the first epoch.

    Args:
      key: Of the weights.
      module: Called as `module(x, train=...)`, or as `module(x)` if it takes no `train`.
      spec: The input domain.
      settings: Their optimizer decides the shape of `opt_state`.
      variables: What to start from; by default the module is freshly initialised.

    Returns:
      The state before the first epoch.

    Raises:
      CakeError: The module does not take inputs of `spec.shape`.
    """
    x = jnp.zeros((1, *spec.shape))
    try:
        if isinstance(module, nn.Module) and variables is None:
            variables = jax.jit(module.init)(key, x)
        else:
            jax.eval_shape(module.apply, variables, x)
    except Exception as error:
        raise CakeError(
            f"model: {type(module).__name__} does not take inputs of shape {spec.shape}: {first_line(error)}"
        ) from error
    if not variables or "params" not in variables:
        raise CakeError(f"model: {type(module).__name__} has no parameters to train")
    model_state, params = dict(variables), variables["params"]
    del model_state["params"]
    opt_state = _optimizer(settings, num_steps=1).init(params)
    return TrainState(params, model_state, opt_state, jnp.zeros((), jnp.int32))


def epochs(
    key: Array,
    state: TrainState,
    module: Module,
    spec: DataSpec,
    x: np.ndarray,
    labels: Any,
    settings: TrainSettings,
    *,
    steps_per_call: int = 0,
) -> Iterator[tuple[TrainState, EpochInfo]]:
    """Trains from `state` to the last epoch, giving the state after each.

    What an epoch does depends on `key` and its number alone, so that going on from a saved state ends where an
    uninterrupted run does.

    Args:
      key: Of the split into training and validation examples, of the order in each epoch, and of the augmentation.
      state: From `init`, or saved.
      module: The architecture.
      spec: The input domain.
      x: Inputs, `[N, *spec.shape]`, normalised.
      labels: Classes `[N]` int, teacher logits `[N, K]`, or `HintonLabels`: what `settings.loss` takes.
      settings: Settings that `check` accepts.
      steps_per_call: Steps of a device call; 0 chooses. With a number, and a constant schedule, one compiled program
        serves data that grow from call to call.

    Yields:
      The state and the figures of each epoch.

    Raises:
      CakeError: The loss is not finite, or the data are fewer than the devices.
    """
    split_key, order_key = jax.random.split(key)
    augment_key = jax.random.fold_in(key, 2)  # a third key, so that the first two are what they are without it
    order = _permutation(split_key, len(x))
    num_validation = round(settings.validation_fraction * len(x))
    validation, training = order[:num_validation], order[num_validation:]
    devices = parallel.total_device_count()
    batch_size = min(settings.batch_size, len(training)) // devices * devices
    if batch_size == 0:
        raise CakeError(f"batch_size: {settings.batch_size} examples a step are fewer than the {devices} devices")
    steps_per_epoch = len(training) // batch_size
    steps_per_call = max(1, min(steps_per_call or steps_per_epoch, _CALL_BYTES // (batch_size * x[0].nbytes)))
    run = _device_function(module, spec, *_schedule_of(settings, steps_per_epoch))
    while int(state.epoch) < settings.epochs:
        rows = training[_permutation(jax.random.fold_in(order_key, state.epoch), len(training))]
        rows = rows[: steps_per_epoch * batch_size].reshape(steps_per_epoch, devices, -1).swapaxes(0, 1)
        rows = rows[parallel.own_devices()]
        epoch_key = jax.random.fold_in(augment_key, state.epoch)
        params, model_state, opt_state, epoch = state
        figures = []
        for step in range(0, steps_per_epoch, steps_per_call):
            steps = np.arange(step, min(step + steps_per_call, steps_per_epoch))
            call = rows[:, steps]
            (params, model_state, opt_state), figure = run(
                (params, model_state, opt_state), x[call], _rows(labels, call), epoch_key, steps
            )
            figures.append(figure)
        state = TrainState(params, model_state, opt_state, epoch + 1)
        loss, accuracy = (float(np.concatenate(part).mean()) for part in zip(*figures, strict=True))
        if not np.isfinite(loss):
            raise CakeError(f"training: the loss is {loss} in epoch {int(state.epoch)}; lower the learning_rate")
        objective = functools.partial(_losses, module, settings, params, batch_size=batch_size)
        held_out = _validate(as_model(module, state, spec), x[validation], _rows(labels, validation), objective)
        yield state, EpochInfo(int(state.epoch), loss, accuracy, *held_out)


def as_model(module: Module, state: TrainState, spec: DataSpec) -> Teacher:
    """The trained model of a state, in evaluation mode; `init` has checked that it fits `spec`."""
    return Teacher({"params": state.params, **state.model_state}, LinenApply(module), spec)


def distill(
    key: Array,
    model: nn.Module | nnx.Module,
    samples: SampleBatch,
    settings: TrainSettings = DISTILLATION,
    *,
    spec: DataSpec | None = None,
) -> Teacher:
    """Trains a student on labelled samples, and on nothing else.

    Args:
      key: A `jax.random.key`.
      model: The student's architecture: a Flax Linen module, which starts from new weights, or a Flax NNX module, which
        starts from those that it has and stays as it is; `student.apply_fn.module.merge(student.variables)` is the
        trained NNX module.
      samples: N samples with the teacher's logits.
      settings: How it is trained; `loss` takes the teacher's logits, as `DistillationLoss` does.
      spec: The input domain, which the student carries; by default what the samples tell of it, in normalised units.

    Returns:
      The student, itself a `Teacher`.

    Raises:
      CakeError: Settings or model do not fit, or the loss became NaN.
    """
    spec = spec or DataSpec(samples.x.shape[1:], samples.logits.shape[-1])
    check(settings, spec, "student")
    init_key, train_key = jax.random.split(key)
    module, variables = split(model) if isinstance(model, nnx.Module) else (model, None)
    start = init(init_key, module, spec, settings, variables)
    *_, (state, _) = epochs(train_key, start, module, spec, samples.x, samples.logits, settings)
    return as_model(module, state, spec)


def _optimizer(settings: TrainSettings, num_steps: int) -> optax.GradientTransformation:
    rate = schedules.learning_rate(settings.learning_rate, num_steps, schedule=settings.schedule)
    if settings.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=settings.weight_decay)
    rule = optax.sgd(rate, momentum=settings.momentum) if settings.optimizer == "sgd" else optax.adam(rate)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), rule)


def _schedule_of(settings: TrainSettings, steps_per_epoch: int) -> tuple[TrainSettings, int]:
    """What of the length of a training its compiled step depends on: nothing, where the rate is constant."""
    if settings.schedule == "constant":
        return dataclasses.replace(settings, epochs=1), 1
    return settings, settings.epochs * steps_per_epoch


def _permutation(key: Array, count: int) -> np.ndarray:
    """What `jax.random.permutation` gives for 0 to count - 1, sorted on the host.

    XLA compiles a sort for each count, which takes longer than a short epoch of data that grow from call to call. The
    random numbers sorted by do not depend on how many are drawn, so their programs are few.
    """
    order, drawn = np.arange(count), 1 << max(count - 1, 0).bit_length()
    for _ in range(math.ceil(3 * math.log(max(count, 1)) / math.log(2**32 - 1))):
        key, bits_key = jax.random.split(key)
        order = order[np.argsort(np.asarray(jax.random.bits(bits_key, (drawn,)))[:count], kind="stable")]
    return order


def _rows(labels: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda field: field[index], labels)


def _are_classes(labels: Any) -> bool:
    return not isinstance(labels, HintonLabels) and labels.ndim == 1


def _hard_labels(labels: Any) -> Any:
    """What a model's argmax is compared with: classes, or the teacher's argmax."""
    logits = labels.logits if isinstance(labels, HintonLabels) else labels
    return labels if _are_classes(labels) else logits.argmax(axis=-1)


def _losses(
    module: Module, settings: TrainSettings, params: Any, logits: Array, labels: Any, *, batch_size: int
) -> Array:
    """Per example, `[B]`: by the module's own loss on classes if it has one, else by that of the settings."""
    if _are_classes(labels) and hasattr(module, "class_loss"):
        return module.class_loss(params, logits, labels, batch_size)
    return settings.loss(logits, labels)


@functools.lru_cache(maxsize=8)
def _device_function(module: Module, spec: DataSpec, settings: TrainSettings, num_steps: int) -> Callable:
    """n steps of an epoch in a scan, given by their numbers `[n]`, which the augmentation draws by.

    `(state, x [D, n, b, *shape], labels [D, n, b, ...], epoch_key, steps [n]) -> (state, (loss [n], accuracy [n]))`
    """
    optimizer = _optimizer(settings, num_steps)
    mode: Any = {"train": True} if isinstance(module, NNXModule) or _takes_train(module) else {}

    def train_step(
        epoch_key: Array, state: tuple, batch: tuple[Array, Array, Array]
    ) -> tuple[tuple, tuple[Array, Array]]:
        params, model_state, opt_state = state
        x, labels, step = batch
        if settings.augment:
            key = jax.random.fold_in(epoch_key, step)
            x = augment(_example_keys(key, len(x)), x, settings.augment, spec)

        def objective(params: Any) -> tuple[Array, tuple]:
            variables = {"params": params, **model_state}
            logits, new_state = module.apply(variables, x, mutable=["batch_stats"], **mode)
            accuracy = (logits.argmax(axis=-1) == _hard_labels(labels)).mean()
            batch_size = len(x) * lax.axis_size(parallel.AXIS)
            loss = _losses(module, settings, params, logits, labels, batch_size=batch_size).mean()
            return loss, (new_state, accuracy)

        (loss, (new_state, accuracy)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        # Not the collections that stay as they are: a mean of equal numbers may differ from them in its last bit.
        gradient, new_state, figures = lax.pmean((gradient, new_state, (loss, accuracy)), parallel.AXIS)
        model_state = {**model_state, **new_state}
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), model_state, opt_state), figures

    def device(state: tuple, x: Array, labels: Any, epoch_key: Array, steps: Array) -> tuple:
        return lax.scan(functools.partial(train_step, epoch_key), state, (x, labels, steps))

    return parallel.map_all_devices(device, in_axes=(None, 0, 0, None, None), out_axes=None)


def _takes_train(module: nn.Module) -> bool:
    """Whether training and evaluation differ for a Linen module."""
    parameters = inspect.signature(type(module).__call__).parameters.values()
    return any(parameter.name == "train" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _example_keys(key: Array, count: int) -> Array:
    """Keys of this device's `count` examples by their place in the whole batch, so whatever the number of devices."""
    places = lax.axis_index(parallel.AXIS) * count + jnp.arange(count)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def _validate(
    model: Teacher, x: np.ndarray, labels: Any, objective: Callable[[Array, Any], Array]
) -> tuple[float | None, float | None]:
    if not len(x):
        return None, None
    logits = predict(model, x)
    loss = objective(jnp.asarray(logits), jax.tree.map(jnp.asarray, labels)).mean()
    return float(loss), float((logits.argmax(axis=-1) == _hard_labels(labels)).mean())
