"""Measures how close the gradient of zeroth-order CAKE comes to the true gradient, as the cosine between the two.

    python scripts/run.py --config=configs/digits.py --workdir=runs/digits
    python scripts/gradient_estimates.py --config=configs/digits.py --run=runs/digits --out=cosines.json

The samples are those of the first mini-batch of white-box CAKE. The script measures two things:
- single looks at the first and after the last step, with each kind of directions and more and more queries;
- looks of a few directions on the way, each alone, and added up to the looks before.
The gradient is that of the loss terms that need the teacher, without the data priors. `--figure` draws both.
"""

import dataclasses
import functools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
from absl import app, flags, logging
from jax import Array
from matplotlib.figure import Figure
from ml_collections import config_flags

import cake_jax
from cake_jax import parallel
from cake_jax.arguments import parse_flags, write_results
from cake_jax.config import resolve
from cake_jax.methods.zeroth_order import gradient_search
from cake_jax.methods.zeroth_order.settings import DIRECTIONS, ZerothOrderSettings
from cake_jax.synthesis import SynthesisSettings, draw_batch, minibatch
from cake_jax.synthesis.objective import objective
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with a variant after a colon.")
_RUN = flags.DEFINE_string("run", None, "Folder of a run of that config, whose teacher is used.", required=True)
_SETS = flags.DEFINE_integer("sets", 10, "Sets to average over.")
_LOOKS = flags.DEFINE_integer("looks", 16, "Number of looks on the way.")
_DIRECTIONS = flags.DEFINE_integer("directions", 8, "Directions of each look on the way.")
_OUT = flags.DEFINE_string("out", "", "JSON file for the cosines.")
_FIGURE = flags.DEFINE_string("figure", "", "PNG file for the figure.")


def main(argv: list[str]) -> None:
    """Measures all cosines, prints those of single looks, and writes the files."""
    logging.set_verbosity(logging.ERROR)
    try:
        teacher = cake_jax.load_model(Path(_RUN.value, "teacher"))
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")
    spec = teacher.spec
    _CONFIG.value.method = "cake"
    common = resolve(_CONFIG.value, _RUN.value).samples.synthesis
    common = dataclasses.replace(common, num_batches=1, batch_size=_SETS.value * common.num_groups)
    size, looks = math.prod(spec.shape), min(_LOOKS.value, common.num_steps)
    steps = [common.num_steps * i // looks for i in range(looks + 1)]
    way = [_after(step, teacher, common) for step in steps]
    target = jnp.asarray(draw_batch(jax.random.key(0), common, spec, 0)[1])
    truths = [_gradient(teacher, x, target, common) for x in way]
    kinds = [kind for kind in DIRECTIONS if kind != "smooth" or spec.is_image]

    def look(number: int, jacobian: Array, place: int, **changes: object) -> tuple[Array, float]:
        settings = ZerothOrderSettings(**vars(common), **changes)  # type: ignore[arg-type]
        keys = jax.random.split(jax.random.key(number), common.num_sets)
        x = way[place].reshape(common.num_sets, -1, *spec.shape)
        model = gradient_search.look(keys, teacher, x, jacobian, settings)
        estimate = _gradient(model.as_teacher(spec), way[place], target, common)
        return model.jacobian, _cosine(estimate, truths[place])

    nothing = jnp.zeros((common.batch_size, spec.num_classes, size))
    single = [
        {"directions": kind, "antithetic": antithetic, "step": steps[place], "queries": 1 + (1 + antithetic) * count}
        | {"cosine": look(0, nothing, place, directions=kind, antithetic=antithetic, num_directions=count)[1]}
        for kind in kinds
        for antithetic in (False, True)
        for place in (0, looks)
        for count in sorted({*(2**i for i in range(size.bit_length())), size})
    ]
    on_the_way = []
    count = min(_DIRECTIONS.value, size)
    for kind in kinds:
        jacobian = nothing
        for place, step in enumerate(steps):
            alone = look(place, nothing, place, directions=kind, num_directions=count)[1]
            jacobian, added_up = look(place, jacobian, place, directions=kind, num_directions=count)
            on_the_way.append({"directions": kind, "step": step, "alone": alone, "added_up": added_up})
    for row in single:
        print(row)
    numbers = {"number": looks + 1, "num_directions": count}
    write_results(_OUT.value, looks=numbers, single=single, on_the_way=on_the_way)
    if _FIGURE.value:
        _draw(single, on_the_way, count).savefig(_FIGURE.value, dpi=150)


def _after(step: int, teacher: Teacher, settings: SynthesisSettings) -> Array:
    """The samples `[N, *shape]` of white-box CAKE after `step` steps."""
    shorter = dataclasses.replace(settings, num_steps=step)
    return jnp.asarray(minibatch(jax.random.key(0), teacher, shorter, 0)[0].x)


@functools.partial(jax.jit, static_argnames="settings")
def _gradient(teacher: Teacher, x: Array, target: Array, settings: SynthesisSettings) -> Array:
    """dL/dx `[N, D]` without the data priors."""
    weights = dataclasses.replace(settings.weights, tv=0.0, priors=())
    settings = dataclasses.replace(settings, weights=weights)
    sets = (settings.num_sets, settings.num_groups)

    def loss(x: Array) -> Array:
        return objective(x, teacher, target.reshape(sets), jnp.ones(sets[0], bool), settings)[0]

    # Terms that couple the sets reduce over the axis of devices. Here that axis has one device.
    gradient = jax.vmap(jax.grad(loss), axis_name=parallel.AXIS)
    return gradient(x.reshape(1, *sets, *x.shape[1:])).reshape(len(x), -1)


def _cosine(estimate: Array, truth: Array) -> float:
    """The mean cosine of the samples. A sample whose gradient is 0 does not count."""
    products, length = jnp.sum(estimate * truth, 1), jnp.linalg.norm(estimate, axis=1) * jnp.linalg.norm(truth, axis=1)
    return float(jnp.mean(products / length, where=length > 0))


def _draw(single: list[dict], on_the_way: list[dict], count: int) -> Figure:
    """Both measurements side by side. `count` is the number of directions on the way."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colors = matplotlib.colormaps["tab10"]
    ends = sorted({row["step"] for row in single})
    for number, kind in enumerate(dict.fromkeys(row["directions"] for row in single)):
        for antithetic in (False, True):
            for step, style in zip(ends, ("-", "--"), strict=True):
                rows = [r for r in single if (r["directions"], r["antithetic"], r["step"]) == (kind, antithetic, step)]
                label = f"{kind}, {'antithetic' if antithetic else 'one-sided'}" if step == ends[0] else None
                points = [row["queries"] for row in rows], [row["cosine"] for row in rows]
                left.plot(*points, style, color=colors(2 * number + antithetic), label=label)
        rows = [row for row in on_the_way if row["directions"] == kind]
        for name, style in (("added_up", "-"), ("alone", ":")):
            label = f"{kind}, {name.replace('_', ' ')}"
            points = [row["step"] for row in rows], [row[name] for row in rows]
            right.plot(*points, style, color=colors(2 * number), label=label)
    left.set(xscale="log", xlabel="queries a sample", ylabel="cosine to the true gradient", ylim=(0, 1.02))
    left.set_title(f"one look: at the start (lines), after {ends[-1]} steps (dashes)", fontsize="medium")
    right.set(xlabel="step")
    right.set_title(f"looks of {count} directions on the way", fontsize="medium")
    for axes in (left, right):
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
