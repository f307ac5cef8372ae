"""Measures the speed of training: images a second of a student's training, in cake_jax and in eager PyTorch.

    python scripts/benchmark_training.py --networks=wrn_16_1,cnn --out=results/training_cpu.json

A turn is one epoch. `fixed` is the training with stored labels. `asked` labels each batch within the step: a teacher of
the same architecture answers. PyTorch trains with stored labels, after a check that both compute the same loss and the
same gradient. All take turns, and the printed figures are medians. It needs PyTorch.

Four further measurements are parts of an epoch, without the optimizer and the exchange between devices:

- `forward` is the loss alone.
- `input gradient` is the loss and its gradient with respect to the images.
- `gradient` is the loss and its gradient with respect to the parameters.
- `gradient, stored moments` is the same in evaluation mode, so that batch norm computes no moments.

`matrix product` is a product of square matrices on each device. To measure one device, bind the process to one core.
"""

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import torch_baseline
from absl import app, flags
from jax import Array, lax
from machine import MATRIX_SIDE, describe as describe_machine, matrix_product

from cake_jax import cost, models, parallel
from cake_jax.arguments import parse_flags, write_results
from cake_jax.training import DistillationLoss, Labels, TrainSettings, ViewSettings, trainer, views
from cake_jax.types import DataSpec

_NETWORKS = flags.DEFINE_list(
    "networks", ["mlp", "lenet5_half", "vit_small", "cnn", "wrn_16_1", "resnet18"], "Networks to measure."
)
_IMAGES = flags.DEFINE_integer("images", 2048, "Images in an epoch.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images in a step.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Number of turns.")
_OUT = flags.DEFINE_string("out", "", "JSON file for all measurements.")

MNIST, CIFAR = DataSpec((28, 28, 1), 10), DataSpec((32, 32, 3), 10)
_SPECS = dict.fromkeys(("mlp", "lenet5_half", "cnn"), MNIST)
# Highest relative difference of loss and gradient between both implementations.
_TOLERANCE = 1e-3


def main(argv: list[str]) -> None:
    """Measures each network, prints a line for it, and writes all measurements."""
    jax.config.update("jax_num_cpu_devices", len(parallel.usable_cores()))
    torch.set_num_threads(len(parallel.usable_cores()))
    cases = []
    for name in _NETWORKS.value:
        cases.append(measure(name))
        seconds = {label: statistics.median(times) for label, times in cases[-1]["seconds"].items()}
        product = cases[-1]["matrix_product_flops"] / seconds.pop("matrix product")
        rates = {label: _IMAGES.value / median for label, median in seconds.items()}
        print(f"{name}: " + ", ".join(f"{label} {rate:,.0f} images/s" for label, rate in rates.items()), flush=True)
        print(f"  matrix product {product / 1e9:.0f} GFLOP/s", flush=True)
    write_results(_OUT.value, machine=describe_machine(), torch=torch.__version__, cases=cases)


def measure(name: str) -> dict[str, Any]:
    """The seconds of each epoch of one network, by implementation."""
    spec, rng = _SPECS.get(name, CIFAR), np.random.default_rng(0)
    x = rng.normal(size=(_IMAGES.value, *spec.shape)).astype(np.float32)
    logits = rng.normal(size=(_IMAGES.value, spec.num_classes)).astype(np.float32)
    settings = TrainSettings(
        epochs=10**6, batch_size=_BATCH_SIZE.value, schedule="constant", learning_rate=0.01, validation_fraction=0.0
    )
    module = models.create(name, spec)
    state, labels = trainer.init(jax.random.key(0), module, spec, settings), Labels(logits.argmax(-1), logits)
    variables = {"params": state.params, **state.model_state}
    errors = _disagreement(name, module, variables, x[:64], logits[:64])
    if max(errors.values()) > _TOLERANCE:
        sys.exit(f"error: {name}: PyTorch computes another loss or gradient; relative differences: {errors}")

    def ours(how: TrainSettings = settings, **options: Any) -> Callable[[], Any]:
        epochs = trainer.epochs(
            jax.random.key(1), state, module, spec, x, labels, how, loss=DistillationLoss(), **options
        )
        return lambda: next(epochs)

    teacher = trainer.as_model(module, state, spec)
    runs = {
        "fixed": ours(),
        "asked": ours(**views.asked(ViewSettings(ask=True), settings, spec, teacher)),
        "fixed bf16": ours(how=dataclasses.replace(settings, precision="bf16")),
        "torch float32": _torch_epoch(name, variables, x, logits, None),
        "torch bf16": _torch_epoch(name, variables, x, logits, torch.bfloat16),
    }
    runs |= _parts(module, variables, x, logits)
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {label: [] for label in runs}
    for label, run in runs.items():
        started = time.perf_counter()
        run()
        first[label] = time.perf_counter() - started
    for _ in range(_REPEATS.value):
        for label, run in runs.items():
            started = time.perf_counter()
            run()
            times[label].append(time.perf_counter() - started)
    return {
        "network": name,
        "images": _IMAGES.value,
        "forward_flops_per_image": _flops(teacher, x[:100]) / 100,
        "matrix_product_flops": 2 * MATRIX_SIDE**3 * jax.local_device_count(),
        "relative_errors": errors,
        "first_epoch_seconds": first,
        "seconds": times,
    }


def _parts(module: Any, variables: Any, x: np.ndarray, logits: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Functions that compute parts of an epoch on all devices, and a matrix product."""
    shape = (jax.local_device_count(), len(x) // _BATCH_SIZE.value, -1)
    batches = x.reshape(*shape, *x.shape[1:]), logits.reshape(*shape, logits.shape[-1])
    rest = {key: value for key, value in variables.items() if key != "params"}

    def loss(params: Any, x: Array, logits: Array, train: bool) -> Array:
        answer, _ = module.apply({"params": params, **rest}, x, mutable=["batch_stats"], train=train)
        return DistillationLoss()(answer, Labels(logits.argmax(-1), logits)).mean()

    def over_batches(part: Callable[..., Any]) -> Callable[[], Any]:
        def device(params: Any, x: Array, logits: Array) -> Array:
            # Each batch starts from the sum of the last gradient, so that none is left out or moved out of the loop.
            def add(total: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
                nearly = jax.tree.map(lambda leaf: leaf + 1e-20 * total, params)
                sums = [jnp.sum(leaf) for leaf in jax.tree.leaves(part(nearly, *batch))]
                return jnp.sum(jnp.stack(sums)), None

            return lax.scan(add, jnp.zeros(()), (x, logits))[0]

        run = parallel.map_devices(device, in_axes=(None, 0, 0))
        params, inputs = parallel.replicate(variables["params"]), batches
        return lambda: jax.block_until_ready(run(params, *inputs))

    multiply = matrix_product(jnp.float32)
    return {
        "forward": over_batches(functools.partial(loss, train=True)),
        "input gradient": over_batches(jax.grad(functools.partial(loss, train=True), argnums=1)),
        "gradient": over_batches(jax.grad(functools.partial(loss, train=True))),
        "gradient, stored moments": over_batches(jax.grad(functools.partial(loss, train=False))),
        "matrix product": lambda: jax.block_until_ready(multiply()),
    }


def _flops(teacher: Any, x: np.ndarray) -> float:
    """XLA's count of the operations of the teacher's answers, in the form without products of rows."""
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        return cost.flops(lambda teacher, x: teacher(x), teacher, x)


def _torch_parameters(variables: Any) -> tuple[Any, list[torch.Tensor]]:
    tree = torch_baseline.convert(variables)
    statistics_of = {"mean", "var"}
    found: list[torch.Tensor] = []

    def visit(node: Any) -> None:
        for name, leaf in node.items():
            if isinstance(leaf, dict):
                visit(leaf)
            elif name not in statistics_of:
                found.append(leaf.requires_grad_())

    visit(tree)
    return tree, found


def _torch_images(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def _torch_loss(network: Callable, tree: Any, x: torch.Tensor, targets: torch.Tensor, kind: Any) -> torch.Tensor:
    with torch.autocast("cpu", kind, enabled=kind is not None):
        logits = network(tree, x)
    return F.cross_entropy(logits.float(), targets)


def _torch_epoch(name: str, variables: Any, x: np.ndarray, logits: np.ndarray, kind: Any) -> Callable[[], None]:
    """A function that trains one epoch in PyTorch, in float32 or under autocast to `kind`."""
    tree, parameters = _torch_parameters(variables)
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=5e-4)
    images, targets = _torch_images(x), torch.from_numpy(logits).softmax(-1)

    def run() -> None:
        order = torch.randperm(len(images))
        for rows in order.split(_BATCH_SIZE.value):
            optimizer.zero_grad()
            _torch_loss(torch_baseline.NETWORKS[name], tree, images[rows], targets[rows], kind).backward()
            optimizer.step()

    return run


def _disagreement(name: str, module: Any, variables: Any, x: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Relative differences of the training loss and of its gradient between both implementations."""
    rest = {key: value for key, value in variables.items() if key != "params"}
    labels = Labels(logits.argmax(-1), logits)

    def loss(params: Any) -> Array:
        answer, _ = module.apply({"params": params, **rest}, x, train=True, mutable=["batch_stats"])
        return DistillationLoss()(answer, labels).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(variables["params"])
    tree, parameters = _torch_parameters(variables)
    theirs = _torch_loss(
        torch_baseline.NETWORKS[name], tree, _torch_images(x), torch.from_numpy(logits).softmax(-1), None
    )
    theirs.backward()
    ours = _torch_parameters({"params": gradient})[1]
    differences = [float((a.detach() - b.grad).norm()) for a, b in zip(ours, parameters, strict=True)]
    norms = [float(b.grad.norm()) for b in parameters]
    return {
        "loss": abs(float(value) / float(theirs.detach()) - 1),
        "gradient": float(np.linalg.norm(differences) / np.linalg.norm(norms)),
    }


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
