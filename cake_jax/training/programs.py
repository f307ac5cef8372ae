"""The compiled programs of a training: steps in a scan on every device, and inputs without labels."""

import functools
from collections.abc import Callable
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from cake_jax import cost, parallel, random_keys, schedules
from cake_jax.models import modes
from cake_jax.models.equinox_adapter import EquinoxModule
from cake_jax.models.nnx_adapter import NNXModule
from cake_jax.precision import cast
from cake_jax.training.batches import Learning, MakeBatch
from cake_jax.training.labels import Labels
from cake_jax.training.losses import Loss
from cake_jax.training.settings import TrainSettings

# Fewer examples at once are not faster on a CPU, whatever their network.
_SMALLEST_CHUNK = 8

Module = nn.Module | NNXModule | EquinoxModule


def optimizer_of(settings: TrainSettings, num_steps: int) -> optax.GradientTransformation:
    """The Optax transformation of a training of `num_steps` steps."""
    rate = schedules.learning_rate(settings.peak_rate, num_steps, schedule=settings.schedule)
    if settings.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=settings.weight_decay)
    rule = optax.sgd(rate, momentum=settings.momentum) if settings.optimizer == "sgd" else optax.adam(rate)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), rule)


def losses_of(module: Module, loss: Loss, params: Any, logits: Array, labels: Labels, *, batch_size: int) -> Array:
    """The loss of each example, `[B]`. If there are only hard labels, a module's own `class_loss` replaces `loss`."""
    if labels.logits is None and hasattr(module, "class_loss"):
        return module.class_loss(params, logits, labels.classes, batch_size)
    return loss(logits, labels)


@functools.lru_cache(maxsize=8)
def training_program(
    module: Module, settings: TrainSettings, num_steps: int, loss: Loss, make_batch: MakeBatch | None, resident: bool
) -> Callable:
    """Compiles a program that takes n steps of an epoch in a scan. `steps` are their numbers, `[n]`.

    `(state, (x, labels), rows [D, n, b], epoch_key, steps [n], context)
    -> (state, (loss [n], accuracy [n]), mean of the statistics of batch norm)`

    `rows` are the examples of each step. With `resident`, all devices have the same examples x `[N, *shape]`. Otherwise
    each has its own, `[D, N, *shape]`.
    """
    optimizer = optimizer_of(settings, num_steps)
    learner = make_batch if learns(make_batch) else None

    def train_step(
        source: tuple[Array, Labels], epoch_key: Array, context: Any, state: tuple, batch: tuple[Array, Array]
    ) -> tuple[tuple, tuple[tuple[Array, Array], Any]]:
        params, model_state, opt_state = state
        rows, step = batch
        own_context = context
        if learner is not None:
            opt_state, learned = opt_state
            own_context = context, learned
        x, labels = _made(make_batch, source, rows, step, epoch_key, own_context)

        def objective(params: Any, x: Array, labels: Labels, keys: Array) -> tuple[Array, tuple]:
            variables = {"params": cast(params, settings.precision), **model_state}
            x = cast(x, settings.precision)
            logits, new_state = modes.apply(module, variables, x, train=True, keys=keys, mutable=["batch_stats"])
            logits = logits.astype(jnp.float32)
            accuracy = (logits.argmax(axis=-1) == labels.classes).mean()
            value = losses_of(module, loss, params, logits, labels, batch_size=batch_size).mean()
            return value, (new_state, accuracy)

        batch_size = len(x) * lax.axis_size(parallel.AXIS)
        evaluate = functools.partial(jax.value_and_grad(objective, has_aux=True), params)
        chunk = len(x) if model_state else _chunk_size(module, params, x)
        step_key = jax.random.fold_in(epoch_key, step)
        keys = _example_keys(random_keys.dropout(step_key), len(x))
        (value, (new_state, accuracy)), gradient = _mean_over_chunks(evaluate, chunk, x, labels, keys)
        # Unchanged collections stay out of the mean, because a mean of equal numbers may differ in the last bit.
        gradient, new_state, figures = parallel.mean((gradient, new_state, (value, accuracy)))
        model_state = {**model_state, **new_state}
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        if learner is not None:
            student = functools.partial(modes.apply, module, {"params": params, **model_state})
            keys = _example_keys(step_key, len(x))
            opt_state = opt_state, learner.learn(keys, learned, step, student, context)
        return (params, model_state, opt_state), (figures, new_state)

    def device(state: tuple, source: tuple, rows: Array, epoch_key: Array, steps: Array, context: Any) -> tuple:
        step = functools.partial(train_step, source, epoch_key, context)
        state, (figures, statistics) = lax.scan(step, state, (rows, steps))
        return state, figures, jax.tree.map(lambda leaf: leaf.mean(axis=0), statistics)

    axes = (None, None if resident else 0, 0, None, None, None)
    return parallel.map_all_devices(device, in_axes=axes, out_axes=None)


@functools.lru_cache(maxsize=8)
def input_program(make_batch: MakeBatch | None, resident: bool) -> Callable:
    """Compiles a program that makes the inputs of n steps and labels none. `training_program` has the arguments.

    `((x, labels), rows [D, n, b], epoch_key, steps [n], context) -> x [D, n, b, *shape]`
    """

    def device(source: tuple, rows: Array, epoch_key: Array, steps: Array, context: Any) -> Array:
        def inputs(batch: tuple[Array, Array]) -> Array:
            rows, step = batch
            return _made(make_batch, source, rows, step, epoch_key, context)[0]

        return lax.map(inputs, (rows, steps))

    return parallel.map_all_devices(device, in_axes=(None if resident else 0, 0, None, None, None))


def learns(make_batch: Any) -> TypeGuard[Learning]:
    """Whether `make_batch` has a state that learns in each step."""
    return getattr(make_batch, "learns", False)


def _made(
    make_batch: MakeBatch | None,
    source: tuple[Array, Labels],
    rows: Array,
    step: Array,
    epoch_key: Array,
    context: Any,
) -> tuple[Array, Labels]:
    """The inputs and labels of a step, made from the rows of stored examples."""
    x, labels = jax.tree.map(functools.partial(_taken, rows), source)
    if make_batch is None:
        return x, labels
    return make_batch(_example_keys(jax.random.fold_in(epoch_key, step), len(x)), x, labels, context)


def _chunk_size(module: Module, params: Any, x: Array) -> int:
    """The number of examples whose gradient a device computes at once. It divides the number of examples x.

    A CPU takes so few that their values stay in the core's cache.
    """
    if jax.default_backend() != "cpu":
        return len(x)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), ({"params": params}, x))
    flops = cost.flops(functools.partial(modes.apply, module), *shapes)
    limit = max(_SMALLEST_CHUNK, cost.CORE_FLOPS * len(x) / max(flops, 1.0))
    fitting = (size for size in range(_SMALLEST_CHUNK, len(x)) if size <= limit and len(x) % size == 0)
    return len(x) if limit >= len(x) else max(fitting, default=len(x))


def _mean_over_chunks(function: Callable[..., Any], chunk: int, *batch: Any) -> Any:
    """The mean of `function(*part)` over the parts of a batch, which have `chunk` examples each."""
    count = len(batch[0]) // chunk
    if count == 1:
        return function(*batch)
    parts = jax.tree.map(lambda leaf: leaf.reshape(count, chunk, *leaf.shape[1:]), batch)
    shapes = jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, function(*part)), None), zeros, parts)
    return jax.tree.map(lambda leaf: leaf / count, total)


def _taken(rows: Array, leaf: Array) -> Array:
    """Rows of an array. A CPU copies flat rows faster."""
    return leaf.reshape(len(leaf), -1)[rows].reshape(len(rows), *leaf.shape[1:])


def _example_keys(key: Array, count: int) -> Array:
    """The keys of this device's `count` examples. A key depends on the example's place in the whole batch."""
    places = lax.axis_index(parallel.AXIS) * count + jnp.arange(count)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
