"""Measures the speed of the synthesis: CAKE and LAKE steps, the teacher's gradient alone, and a matrix product.

    python scripts/benchmark.py --networks=lenet5,cnn --baseline=torch --out=results/benchmark.json
    python scripts/benchmark.py --samples=10000,1000000 --out=results/memory.json
    python scripts/benchmark.py --networks=cnn --profile --out=results/profile.json

Each network is measured in a process of its own. There, all measurements take turns, so that other load on the machine
affects all of them alike. The printed figures are medians over the turns. `--baseline=torch` also times the same step
in eager PyTorch, after a check that both compute the same loss and gradient.

Two flags replace these measurements by another one. `--samples` measures the peak memory of making and storing that
many samples of LeNet-5 with two steps. `--profile` divides the time of a CAKE step on one core among its operations.
"""

import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import Array, lax
from machine import MATRIX_SIDE, describe as describe_machine, matrix_product

from cake_jax import cost, models, parallel, stream, teachers
from cake_jax.arguments import parse_flags, write_results
from cake_jax.precision import PRECISIONS, cast
from cake_jax.stores.samples import SampleStore
from cake_jax.synthesis import SynthesisSettings, Weights, minibatch
from cake_jax.synthesis.chunks import sets_per_chunk
from cake_jax.synthesis.objective import set_logits
from cake_jax.types import DataSpec

_NETWORKS = flags.DEFINE_list("networks", ["mlp", "lenet5", "cnn", "vit_small", "resnet18"], "Networks to measure.")
_BASELINE = flags.DEFINE_enum("baseline", "", ["", "torch"], "Another implementation to time.")
_METHODS = flags.DEFINE_list("methods", ["cake", "lake"], "Methods to time.")
_PRECISIONS = flags.DEFINE_list("precisions", ["float32", "bf16"], "Precisions of the teacher's arithmetic.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 500, "Samples in a mini-batch.")
_NUM_GROUPS = flags.DEFINE_integer("num_groups", 10, "Samples in a set.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Number of turns.")
_CPU_DEVICES = flags.DEFINE_integer("cpu_devices", 0, "CPU devices. 0 measures twice: one a core, and one alone.")
_SAMPLES = flags.DEFINE_list("samples", [], "Measure the peak memory of these numbers of samples, not the time.")
_PROFILE = flags.DEFINE_bool("profile", False, "Measure each operation of a CAKE step on one core.")
_OUT = flags.DEFINE_string("out", "", "JSON file for all measurements.")
_CHILD = flags.DEFINE_bool("child", False, "Internal: measure in this process.")

MNIST, CIFAR = DataSpec((28, 28, 1), 10), DataSpec((32, 32, 3), 10)
# By name: input domain, options of the model, and number of steps in a call. A call must be long enough for the clock.
_CASES: dict[str, tuple[DataSpec, dict[str, Any], int]] = {
    "mlp": (MNIST, {"num_hidden": 4, "width": 100}, 64),
    "lenet5": (MNIST, {}, 16),
    "cnn": (MNIST, {}, 4),
    "vit_small": (CIFAR, {}, 4),
    "resnet18": (CIFAR, {}, 1),
    "resnet34": (CIFAR, {}, 1),
}


def main(argv: list[str]) -> None:
    """Measures each network in its own process, prints a summary and writes all measurements."""
    if _CHILD.value:
        if _PROFILE.value:  # JAX's backend reads this when it starts
            os.environ["XLA_FLAGS"] = f"--xla_dump_to={_OUT.value}.programs --xla_dump_hlo_as_text"
        cores = parallel.usable_cores()[: _CPU_DEVICES.value or None]
        os.sched_setaffinity(0, cores)  # before the backend starts its threads, which inherit it
        jax.config.update("jax_num_cpu_devices", len(cores))
        name = _NETWORKS.value[0]
        case = memory(int(_SAMPLES.value[0])) if _SAMPLES.value else profile(name) if _PROFILE.value else measure(name)
        Path(_OUT.value).write_text(json.dumps(case, indent=1))
        return
    # This process must not start a backend. On a GPU, the backend would take the memory that the children need.
    cases = []
    for count in _SAMPLES.value:
        cases.append(_in_own_process(f"--samples={count}"))
        print(json.dumps(cases[-1]), flush=True)
    for name in _NETWORKS.value if _PROFILE.value else []:
        cases.append(_in_own_process(f"--networks={name}", "--cpu_devices=1"))
        print(_profile_row(cases[-1]), flush=True)
    for name in [] if _SAMPLES.value or _PROFILE.value else _NETWORKS.value:
        many = _in_own_process(f"--networks={name}")
        one = (
            _in_own_process(f"--networks={name}", "--cpu_devices=1", "--baseline=", "--methods=cake")
            if many["device"] == "cpu"
            else None
        )
        cases.append({**many, "one_device": one})
        print(_row(cases[-1]), flush=True)
    write_results(_OUT.value, machine=describe_machine(), cases=cases)


def measure(name: str) -> dict[str, Any]:
    """All measurements of one network on the devices of this process. `seconds` has the time of a step in each turn."""
    spec, options, num_steps = _CASES[name]
    teacher = _teacher(name, spec, options)
    runs: dict[str, tuple[Callable[[], Any], int]] = {}  # a function, and the number of its steps
    result: dict[str, Any] = {
        "network": name,
        "device": jax.local_devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "sets_per_chunk": sets_per_chunk(teacher, _settings()),
        "first_call_seconds": {},
    }
    for precision in _PRECISIONS.value:
        for method in _METHODS.value:
            for steps in (0, num_steps):
                temperature = {"cake": 0.0, "lake": 1.0}[method]
                settings = _settings(num_steps=steps, langevin_temperature=temperature, precision=precision)
                label = f"{method} {precision}" + " start" * (not steps)
                runs[label] = (partial(minibatch, jax.random.key(0), teacher, settings, 0), max(steps, 1))
        for sets in _chunks(teacher):
            runs[f"gradient {precision}, {sets} sets"] = (
                _bare_gradient(teacher, sets, precision, num_steps),
                num_steps,
            )
        runs[f"matrix product {precision}"] = (matrix_product(PRECISIONS[precision]), 1)
    if _BASELINE.value:
        result["loss_and_gradient_error"], baseline = _baseline(name, teacher, spec, num_steps)
        runs.update(baseline)
    for label, (call, _) in runs.items():
        started = time.perf_counter()
        jax.block_until_ready(call())
        result["first_call_seconds"][label] = time.perf_counter() - started
    times: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(_REPEATS.value):
        for label, (call, _) in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            times[label].append(time.perf_counter() - started)
    for label in [label for label in runs if label + " start" in runs]:
        starts = times.pop(label + " start")  # the time to draw the starts and to label the samples
        times[label] = [whole - start for whole, start in zip(times[label], starts, strict=True)]
    result["seconds"] = {label: [t / runs[label][1] for t in values] for label, values in times.items()}
    result["flops_per_step"] = _flops(teacher) * _BATCH_SIZE.value
    result["matrix_flops"] = 2 * MATRIX_SIDE**3 * jax.local_device_count()
    result["peak_memory_bytes"] = _peak_memory()
    return result


def memory(count: int) -> dict[str, Any]:
    """Peak memory of this process, in bytes, after making and storing `count` samples of LeNet-5 with two steps."""
    settings = _settings(num_batches=count // _BATCH_SIZE.value, num_steps=2)
    teacher, started = _teacher("lenet5", MNIST, {}), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store = SampleStore(folder)
        for batch, made in enumerate(stream(jax.random.key(0), teacher, MNIST, settings)):
            store.append(batch, made.samples)
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "samples": store.count,
        "stored_bytes": stored,
        "peak_memory_bytes": _peak_memory(),
        "seconds": time.perf_counter() - started,
    }


def profile(name: str) -> dict[str, Any]:
    """Milliseconds of each operation of a CAKE step. An operation's name is its place in the JAX program."""
    spec, options, num_steps = _CASES[name]
    teacher, settings = _teacher(name, spec, options), _settings(num_steps=num_steps, precision=_PRECISIONS.value[0])
    minibatch(jax.random.key(0), teacher, settings, 0)
    folder = Path(_OUT.value + ".programs")
    programs = "".join(path.read_text() for path in folder.glob("*after_optimizations.txt"))
    # The instructions in the loop over steps, which is inside the loop over chunks. Inner loops are left out, because
    # their instructions are counted.
    places = dict(
        re.findall(
            r'%((?!while)\S+) = .*op_name="[^"]*?/while/body/closed_call/while/body/closed_call/([^"]+)"', programs
        )
    )
    with jax.profiler.trace(str(folder)):
        minibatch(jax.random.key(0), teacher, settings, 0)
    trace = jax.profiler.ProfileData.from_file(str(next(folder.rglob("*.xplane.pb"))))
    spent: dict[str, float] = dict.fromkeys(places.values(), 0.0)
    for event in (event for plane in trace.planes for line in plane.lines for event in line.events):
        if event.name in places:
            spent[places[event.name]] += event.duration_ns / 1e6 / num_steps
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    return {"network": name, "precision": _PRECISIONS.value[0], "milliseconds_per_step": dict(ordered[:30])}


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _chunks(teacher: teachers.Teacher) -> list[int]:
    """The numbers of sets in a chunk to try for the bare gradient.

    They are 1, 5, the number of the synthesis, and all. For large networks on a CPU they are 1 and 2.
    """
    share = _BATCH_SIZE.value // _NUM_GROUPS.value // jax.local_device_count()
    if jax.default_backend() == "cpu" and _flops(teacher) > 1e8:
        return [1, 2]
    return sorted({1, 5, sets_per_chunk(teacher, _settings()), share})


def _settings(**changes: Any) -> SynthesisSettings:
    fields: dict[str, Any] = {
        "num_batches": 1,
        "batch_size": _BATCH_SIZE.value,
        "num_groups": _NUM_GROUPS.value,
        "schedule": "constant",
        "step_size": 0.1,
        "weights": Weights(cls=1.0, contr=0.1, tv=1.0),
        **changes,
    }
    return SynthesisSettings(**fields)


def _teacher(name: str, spec: DataSpec, options: dict[str, Any]) -> teachers.Teacher:
    module = models.create(name, spec, options)
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, *spec.shape)))
    return teachers.from_linen(module, variables, spec)


def _bare_gradient(teacher: teachers.Teacher, sets: int, precision: str, num_steps: int) -> Callable[[], Any]:
    """A function that computes `num_steps` teacher gradients of a mini-batch, `sets` sets at a time, and nothing else.

    The samples are vectors between the steps, as in the synthesis.
    """
    index, _ = parallel.deal(_BATCH_SIZE.value // _NUM_GROUPS.value, sets)
    x = np.asarray(jax.random.normal(jax.random.key(2), (*index.shape, _NUM_GROUPS.value, *teacher.spec.shape)))

    def device(teacher: teachers.Teacher, x: Array) -> Array:
        teacher = cast(teacher, precision)

        def chunk(flat: Array) -> Array:
            gradient = jax.grad(lambda flat: set_logits(teacher, flat.reshape(x.shape[1:])).sum())
            return lax.scan(lambda flat, _: (flat + 1e-6 * gradient(flat), None), flat, None, length=num_steps)[0]

        return lax.map(chunk, x.reshape(*x.shape[:3], -1))

    run = parallel.map_devices(device, in_axes=(None, 0))
    return lambda: run(teacher, x)


def _flops(teacher: teachers.Teacher) -> float:
    """The floating-point operations of the input gradient of one sample.

    XLA counts them for ordinary convolutions, which JAX uses on a GPU, even if another form runs here.
    """
    x = jax.ShapeDtypeStruct((_NUM_GROUPS.value, *teacher.spec.shape), jnp.float32)
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        return cost.flops(jax.grad(lambda x, teacher: teacher(x).sum()), x, teacher) / _NUM_GROUPS.value


def _baseline(
    name: str, teacher: teachers.Teacher, spec: DataSpec, num_steps: int
) -> tuple[dict[str, float], dict[str, tuple[Callable[[], Any], int]]]:
    """The baseline in PyTorch.

    Returns:
      Relative differences of the loss and of its gradient between both implementations; and functions of PyTorch's
      steps by label, each with its number of steps.
    """
    import torch
    import torch_baseline

    settings = _settings(num_steps=num_steps)
    sets = settings.num_sets
    start = jax.random.normal(jax.random.key(3), (sets, settings.num_groups, *spec.shape))
    target = jnp.tile(jnp.arange(settings.num_groups), (sets, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(parallel.usable_cores()))
    errors = torch_baseline.disagreement(name, teacher, start, target, settings, device)
    if max(errors.values()) > 1e-4:
        sys.exit(f"error: {name}: PyTorch computes another loss or gradient; relative differences: {errors}")
    network, params = torch_baseline.NETWORKS[name], torch_baseline.convert(teacher.variables, device)
    x, labels = torch_baseline.tensors(start, target, device)

    def run(autocast: torch.dtype | None) -> Callable[[], Any]:
        def call() -> None:
            torch_baseline.steps(network, params, x, labels, settings, autocast)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    kinds = {"float32": None, "bf16": torch.bfloat16, **({"float16": torch.float16} if device == "cuda" else {})}
    return errors, {f"torch {kind}": (run(dtype), num_steps) for kind, dtype in kinds.items()}


def _in_own_process(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "case.json")
        command = [sys.executable, *sys.argv, "--child", f"--out={out}", *arguments]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"error: this measurement failed: {shlex.join(command)}")
        return json.loads(out.read_text())


def _profile_row(case: dict[str, Any]) -> str:
    """The ten slowest operations, as lines of text."""
    spent = case["milliseconds_per_step"]
    lines = [f"{milliseconds:9.2f} ms  {place}" for place, milliseconds in list(spent.items())[:10]]
    return "\n".join(
        [f"{case['network']}, {case['precision']}: {sum(spent.values()):.1f} ms a step on one core", *lines]
    )


def _row(case: dict[str, Any]) -> str:
    """The measurements of one network, as lines of text."""
    median = {label: statistics.median(values) for label, values in case["seconds"].items()}
    lines = [f"{case['network']}: {case['flops_per_step'] / 1e9:.2f} GFLOP a step of {_BATCH_SIZE.value} samples"]
    for precision in _PRECISIONS.value:
        cake = median[f"cake {precision}"]
        bare = {label: t for label, t in median.items() if label.startswith(f"gradient {precision}")}
        best = min(bare, key=lambda label: bare[label])
        rate = case["matrix_flops"] / median[f"matrix product {precision}"]
        alike = f"gradient {precision}, {case['sets_per_chunk']} sets"
        reached = case["flops_per_step"] / bare[best] / rate
        lines.append(
            f"  {precision}: "
            + "".join(f"{m.upper()} {1e3 * median[f'{m} {precision}']:.1f} ms, " for m in _METHODS.value)
            + f"around the gradient {cake / median[alike] - 1:.0%}; "
            f"{best} {1e3 * bare[best]:.1f} ms, {reached:.0%} of the matrix rate of {rate / 1e9:.0f} GFLOP/s"
        )
        if case["one_device"]:
            one = statistics.median(case["one_device"]["seconds"][f"cake {precision}"])
            lines[-1] += f"; {one / cake:.2f} x one device"
        for label in [label for label in median if label.startswith("torch")]:
            lines.append(f"    {median[label] / cake:.2f} x {label} ({1e3 * median[label]:.1f} ms)")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
