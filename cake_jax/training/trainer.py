"""The trainer of teachers and students: `init` and `epochs` over a `TrainState`."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import parallel, random_keys
from cake_jax.models import modes
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.training import programs
from cake_jax.training.batches import Augmented, MakeBatch
from cake_jax.training.labels import Labels, from_logits
from cake_jax.training.losses import Loss
from cake_jax.training.programs import Module
from cake_jax.training.settings import TrainSettings
from cake_jax.types import CakeError, DataSpec, first_line

# Highest number of bytes of inputs in one device call. It bounds the memory for data of any size.
_CALL_BYTES = 64 * 2**20
# Inputs of at most so many bytes stay on every device for the whole training. Others travel there batch by batch.
_RESIDENT_BYTES = 2**28


class TrainState(NamedTuple):
    """The state of a training between two epochs, a pytree of arrays.

    Attributes:
      params: The module's parameters.
      model_state: The module's other collections, such as `batch_stats`.
      opt_state: State of the Optax transformation. If `make_batch` learns, the pair of that and of its own state.
      epoch: Number of epochs done, scalar int32.
    """

    params: Any
    model_state: Any
    opt_state: Any
    epoch: Array


class EpochInfo(NamedTuple):
    """Results of one epoch.

    Attributes:
      epoch: Number of epochs done.
      loss: Mean loss over the training steps, in nats.
      accuracy: Share of the training examples whose argmax is the hard label, measured during the steps.
      validation_loss: Mean loss on the held-out examples after the epoch. None if there are none.
      validation_accuracy: Accuracy on the held-out examples after the epoch. None if there are none.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


def init(
    key: Array,
    module: Module,
    spec: DataSpec,
    settings: TrainSettings,
    variables: dict[str, Any] | None = None,
    make_batch: MakeBatch | None = None,
) -> TrainState:
    """Makes the training state before the first epoch.

    Args:
      key: The key of the weights.
      module: The architecture, called as `module(x)`, with its mode under one of the names in `models.modes.MODES`.
      spec: Specification of the inputs.
      settings: The settings. Their optimizer decides the structure of `opt_state`.
      variables: The module's variables before the first step. By default the module is freshly initialised.
      make_batch: The `make_batch` of `epochs`, whose state is initialised too if it learns.

    Returns:
      The state.

    Raises:
      CakeError: The module does not take inputs of `spec.shape`, has no parameters, its mode is not understood, or it
        fails in training mode.
    """
    x, name = jnp.zeros((1, *spec.shape)), modes.class_name(module)
    try:
        if isinstance(module, nn.Module) and variables is None:
            variables = jax.jit(functools.partial(modes.init, module))(key, x)
        logits = jax.eval_shape(functools.partial(modes.apply, module), variables, x)
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(f"model: {name} does not take inputs of shape {spec.shape}: {first_line(error)}") from error
    if not variables or "params" not in variables:
        raise CakeError(f"model: {name} has no parameters to train")
    shape = getattr(logits, "shape", type(logits).__name__)
    if shape != (1, spec.num_classes):
        raise CakeError(f"model: {name} returns {shape} for an input, not the logits (1, {spec.num_classes})")
    modes.check_training(module, variables, x)
    model_state, params = dict(variables), variables["params"]
    del model_state["params"]
    opt_state: Any = programs.optimizer_of(settings, num_steps=1).init(params)
    if programs.learns(make_batch):
        opt_state = opt_state, make_batch.init(random_keys.batch_maker(key))
    return TrainState(params, model_state, opt_state, jnp.zeros((), jnp.int32))


def epochs(
    key: Array,
    state: TrainState,
    module: Module,
    spec: DataSpec,
    x: np.ndarray,
    labels: Labels,
    settings: TrainSettings,
    *,
    loss: Loss,
    make_batch: MakeBatch | None = None,
    context: Any = None,
    answer: Callable[[np.ndarray], np.ndarray] | None = None,
    steps_per_call: int = 0,
) -> Iterator[tuple[TrainState, EpochInfo]]:
    """Trains from `state` to the last epoch, and yields the state after each epoch.

    The draws of an epoch depend on `key` and the epoch's number alone. So a resumed training gives the same result as
    an uninterrupted one.

    The running statistics of batch norm follow the last ten batches or so. After the last epoch they are replaced by
    their mean over the steps of that epoch, which varies less.

    Args:
      key: The key of the training.
      state: A state from `init`, or a saved one.
      module: The architecture.
      spec: Specification of the inputs.
      x: Inputs, `[N, *spec.shape]`, normalised.
      labels: Labels of the inputs.
      settings: Settings that `settings.checked` accepts.
      loss: The loss. If there are only hard labels, the method `class_loss` of a module that has one replaces `loss`.
        Support vector machines have one.
      make_batch: Makes the batch of a step from stored examples. By default images are augmented as `settings` say.
      context: A pytree of arrays that `make_batch` receives, such as the teacher.
      answer: Labels the inputs that `make_batch` makes, on the host: `x [N, *shape] -> logits [N, K]`. For a teacher
        that JAX cannot compile.
      steps_per_call: Number of steps in a device call. 0 takes all steps of an epoch if their inputs are small enough.
        With a fixed number and a constant learning rate, one compiled program serves data that grow from call to call.

    Yields:
      The state and the results of each epoch.

    Raises:
      CakeError: The loss is not finite, or a step has fewer examples than there are devices.
    """
    training_keys = random_keys.training_keys(key)
    validation, training = split(key, settings.validation_fraction, len(x))
    devices = parallel.total_device_count()
    steps_per_epoch, batch_size = epoch_size(settings, len(x))
    fixed_call = bool(steps_per_call)
    steps_per_call = max(1, min(steps_per_call or steps_per_epoch, _CALL_BYTES // (batch_size * x[0].nbytes)))
    if make_batch is None and settings.augment:
        make_batch = Augmented(settings.augment, spec)
    # Programs depend on the shape of what stays on the devices, so data that grow do not stay there.
    resident = not fixed_call and x.nbytes <= _RESIDENT_BYTES
    program = module, *_schedule_of(settings, steps_per_epoch), loss
    if answer is None:
        run = programs.training_program(*program, make_batch, resident)
    else:
        make_inputs, run = (
            programs.input_program(make_batch, resident),
            programs.training_program(*program, None, resident=False),
        )
    state, context = parallel.replicate((state, context))
    stored = parallel.replicate((x, labels)) if resident else None
    while int(state.epoch) < settings.epochs:
        rows = training[_permutation(jax.random.fold_in(training_keys.order, state.epoch), len(training))]
        rows = rows[: steps_per_epoch * batch_size].reshape(steps_per_epoch, devices, -1).swapaxes(0, 1)
        rows = rows[parallel.own_devices()]
        epoch_key = jax.random.fold_in(training_keys.batches, state.epoch)
        params, model_state, opt_state, epoch = state
        figures, settled = [], []
        for step in range(0, steps_per_epoch, steps_per_call):
            steps = np.arange(step, min(step + steps_per_call, steps_per_epoch))
            call = rows[:, steps]
            source, places = (stored, call) if resident else _call_data(x, labels, call)
            if answer is not None:
                source, places = _answered(make_inputs(source, places, epoch_key, steps, context), answer)
            (params, model_state, opt_state), figure, statistics = run(
                (params, model_state, opt_state), source, places, epoch_key, steps, context
            )
            figures.append(figure)
            settled.append(statistics)
        if int(state.epoch) + 1 == settings.epochs:
            shares = [len(part[0]) / steps_per_epoch for part in figures]
            model_state = {**model_state, **_mean_of(shares, settled)}
        state = TrainState(params, model_state, opt_state, epoch + 1)
        mean_loss, accuracy = (float(np.concatenate(part).mean()) for part in zip(*figures, strict=True))
        if not np.isfinite(mean_loss):
            rate = f"lower the learning_rate, which is {settings.peak_rate:g}"
            raise CakeError(f"training: the loss is {mean_loss} in epoch {int(state.epoch)}; {rate}")
        per_example = functools.partial(programs.losses_of, module, loss, params, batch_size=batch_size)
        held_out = _validate(as_model(module, state, spec), x[validation], _rows(labels, validation), per_example)
        yield state, EpochInfo(int(state.epoch), mean_loss, accuracy, *held_out)


def split(key: Array, fraction: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the held-out examples, and of those that are trained on.

    Args:
      key: The key of the training.
      fraction: Share of the examples that is held out.
      count: Number of examples.
    """
    order, held_out = _permutation(random_keys.training_keys(key).split, count), round(fraction * count)
    return order[:held_out], order[held_out:]


def epoch_size(settings: TrainSettings, count: int) -> tuple[int, int]:
    """The number of steps of an epoch, and the number of examples of a step over all devices.

    Args:
      settings: The settings.
      count: Number of examples, with those that are held out.

    Raises:
      CakeError: A step or an epoch has fewer examples than there are devices.
    """
    training, devices = count - round(settings.validation_fraction * count), parallel.total_device_count()
    batch_size = min(settings.batch_size, training) // devices * devices
    if batch_size == 0:
        if training < devices:
            raise CakeError(f"training: {training} examples are fewer than the {devices} devices; lower --cpu_devices")
        raise CakeError(f"batch_size: {settings.batch_size} is below the number of devices, {devices}")
    return training // batch_size, batch_size


def as_model(module: Module, state: TrainState, spec: DataSpec) -> Teacher:
    """The model of a training state, in evaluation mode."""
    return Teacher({"params": state.params, **state.model_state}, LinenApply(module), spec)


def _schedule_of(settings: TrainSettings, steps_per_epoch: int) -> tuple[TrainSettings, int]:
    """The settings and the number of steps on which the compiled step depends.

    With a constant learning rate, the compiled step does not depend on the number of steps.
    """
    if settings.schedule == "constant":
        return dataclasses.replace(settings, epochs=1), 1
    return settings, settings.epochs * steps_per_epoch


def _permutation(key: Array, count: int) -> np.ndarray:
    """The numbers 0 to count - 1 in random order. NumPy shuffles on the host, so a new count compiles no program."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(count)


def _rows(labels: Labels, index: np.ndarray) -> Labels:
    return jax.tree.map(lambda field: field[index], labels)


def _call_data(x: np.ndarray, labels: Labels, call: np.ndarray) -> tuple[tuple[np.ndarray, Labels], np.ndarray]:
    """The examples of a device call, `[D, n b, ...]`, and the place of each among those of its device, `[D, n, b]`."""
    index = call.reshape(len(call), -1)
    places = np.broadcast_to(np.arange(index.shape[1]).reshape(call.shape[1:]), call.shape)
    return (x[index], _rows(labels, index)), places


def _mean_of(shares: list[float], trees: list[Any]) -> Any:
    """The mean of pytrees, weighted by shares whose sum is 1."""
    return jax.tree.map(lambda *leaves: sum(map(operator.mul, shares, leaves)), *jax.device_get(trees))


def _answered(
    inputs: Array, answer: Callable[[np.ndarray], np.ndarray]
) -> tuple[tuple[np.ndarray, Labels], np.ndarray]:
    """The data of a device call with inputs `[D, n, b, *shape]` and their answers, as `_call_data` returns them."""
    flat = np.asarray(inputs).reshape(-1, *inputs.shape[3:])
    return _call_data(flat, from_logits(answer(flat)), np.arange(len(flat)).reshape(inputs.shape[:3]))


def _validate(
    model: Teacher, x: np.ndarray, labels: Labels, losses_of: Callable[[Array, Labels], Array]
) -> tuple[float | None, float | None]:
    if not len(x):
        return None, None
    logits = model.predict(x)
    loss = losses_of(jnp.asarray(logits), jax.tree.map(jnp.asarray, labels)).mean()
    return float(loss), float((logits.argmax(axis=-1) == labels.classes).mean())
