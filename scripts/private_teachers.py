"""Measures what privacy of the teacher's training data costs: the accuracy of the teacher, and of a student of it.

    python scripts/private_teachers.py --epsilons=2,8,inf --seeds=0,1,2 --workdir=runs/private \
        --out=private.json --figure=private.png

A teacher of `configs/digits.py` is trained with differential privacy: in each step, the gradient of each training image
is cut to a norm of 1, and Gaussian noise is added to their sum (Abadi et al. 2016, algorithm 1, with all images in each
step). Epsilon bounds what the teacher tells about one image, and the bound holds for everything that is made from the
teacher: samples and student. The Google library dp-accounting computes the noise; delta is 1e-4. `inf` is the same
training without noise. The seeds of the noise are public here, so do not give such a teacher away.

The samples and the student are those of `scripts/run.py`, which takes the teacher from a folder. Finished runs are used
as they are. It needs dp-accounting: `pip install dp-accounting`.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import optax
from matplotlib.figure import Figure

from cake_jax import data, models
from cake_jax.arguments import Parser, output_file
from cake_jax.cli import many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.models import modes
from cake_jax.report.tables import deviation, markdown, percent, spread
from cake_jax.stores import checkpoint
from cake_jax.teachers import Teacher, from_linen
from cake_jax.types import CakeError

_DELTA = 1e-4
_STEPS = 100
_CLIP = 1.0
# Chosen for epsilon 2, on a fifth of the training images.
_LEARNING_RATE, _MOMENTUM = 0.1, 0.9
_NAME, _OPTIONS = "mlp", {"width": 128}


def main() -> None:
    """Trains the teachers, makes the runs, prints the table, and writes the files."""
    parser = Parser(__doc__)
    parser.add_argument("--epsilons", default="2,8,inf", help="bounds of privacy, separated by commas")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas")
    parser.add_argument("--workdir", type=Path, default=Path("runs/private"), help="folder of the runs")
    parser.add_argument("--out", type=output_file, help="JSON file for the results of all runs")
    parser.add_argument("--figure", type=output_file, help="PNG file for the figure")
    flags, others = many_runs.known_flags(parser)
    try:
        epsilons = {text: float(text) for text in flags.epsilons.split(",")}
        seeds = {text: int(text) for text in flags.seeds.split(",")}
    except ValueError as error:
        parser.error(f"--epsilons or --seeds: {error}")
    dataset = data.load(data.DataSettings("digits"))
    jobs: dict[tuple[str, str], Job] = {}
    for epsilon, bound in epsilons.items():
        noise = noise_multiplier(bound)
        for seed, number in seeds.items():
            folder = flags.workdir / f"teacher-{epsilon}-{seed}"
            if not checkpoint.has_model(folder / "teacher"):
                checkpoint.save_model(folder / "teacher", trained(dataset, noise, number), _NAME, _OPTIONS)
            arguments = [f"--config.teacher.from_run={folder}", f"--config.seed={seed}", *others]
            jobs[epsilon, seed] = Job("digits", flags.workdir / f"student-{epsilon}-{seed}", arguments)
    results = list(many_runs.run_all(list(jobs.values())))
    made = zip(jobs, results, strict=True)
    runs = [{"epsilon": epsilon, **one} for (epsilon, _), one in made if isinstance(one, dict)]
    if runs:
        print(table(runs))
        if flags.out:
            many_runs.write(flags.out, runs)
        if flags.figure:
            draw(runs, flags.figure)
    many_runs.end(results)


def noise_multiplier(epsilon: float) -> float:
    """The noise of each step as a multiple of the norm of one image's gradient. 0 if epsilon is infinite.

    Raises:
      CakeError: dp-accounting is not installed.
    """
    if epsilon == float("inf"):
        return 0.0
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError as error:
        raise CakeError("private_teachers.py needs dp-accounting: pip install dp-accounting") from error

    def steps(noise: float) -> Any:
        return dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), _STEPS)

    return dp_accounting.calibrate_dp_mechanism(rdp.RdpAccountant, steps, epsilon, _DELTA)


def trained(dataset: data.Dataset, noise: float, seed: int) -> Teacher:
    """A teacher that is trained with this noise."""
    module = models.create(_NAME, dataset.spec, _OPTIONS)
    init_key, noise_key = jax.random.split(jax.random.key(seed))
    x, y = jnp.asarray(dataset.train_x), jnp.asarray(dataset.train_y)
    variables = modes.init(module, init_key, x[:1])
    optimizer = optax.chain(
        optax.contrib.differentially_private_aggregate(_CLIP, noise, noise_key),
        optax.sgd(_LEARNING_RATE, _MOMENTUM),
    )

    def loss(variables: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        logits = modes.apply(module, variables, image[None], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], label)

    @jax.jit
    def step(variables: Any, state: Any) -> tuple[Any, Any]:
        gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(variables, x, y)
        updates, state = optimizer.update(gradients, state, variables)
        return optax.apply_updates(variables, updates), state

    state = optimizer.init(variables)
    for _ in range(_STEPS):
        variables, state = step(variables, state)
    return from_linen(module, variables, dataset.spec)


# What is shown of a run: a heading, and the value as a share.
COLUMNS = {
    "teacher accuracy, %": lambda run: run["teacher"]["test_accuracy"],
    "student accuracy, %": lambda run: run["student"]["test_accuracy"],
    "agreement, %": lambda run: run["student"]["test_agreement"],
}


def _values(runs: list[dict[str, Any]], heading: str) -> dict[str, list[float]]:
    """The values of a column in percent by epsilon."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(run["epsilon"], []).append(percent(COLUMNS[heading](run)))
    return found


def table(runs: list[dict[str, Any]]) -> str:
    """The table in Markdown: means and standard deviations over the seeds."""
    columns = [_values(runs, heading) for heading in COLUMNS]
    rows = [(epsilon, *(spread(one[epsilon]) for one in columns)) for epsilon in columns[0]]
    return markdown(("epsilon", *COLUMNS), rows)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draws the columns over epsilon, with bars of a standard deviation."""
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for heading in COLUMNS:
        values = _values(runs, heading)
        means = [statistics.mean(each) for each in values.values()]
        deviations = [deviation(each) for each in values.values()]
        axis.errorbar([*values], means, deviations, label=heading, marker="o", capsize=3)
    axis.set(xlabel="epsilon: smaller is more private", ylabel="%")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    try:
        main()
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")
