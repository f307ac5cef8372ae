"""Measures whether students inherit their teacher's robustness: to attacks, and to corruptions of the images.

    python scripts/compare.py --config=configs/digits.py --methods=cake,real --workdir=runs/robust
    python scripts/robustness.py cake=runs/robust/cake-{seed} real=runs/robust/real-{seed} --seeds=0,1,2 \
        --out=robustness.json

Each argument names a student and the folder of its run, in which `{seed}` stands for each of the seeds. The runs of a
seed have the same teacher. The inputs are the first ones of the test set. It needs Foolbox: `pip install foolbox`.

The script prints tables in Markdown: accuracies under attack, accuracies of the other models at the inputs that
were made for one, and accuracy and agreement under corruptions.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cake_jax import data, load_run
from cake_jax.arguments import Parser, output_file, write_results
from cake_jax.evaluation.robustness import TRANSFERRED, robustness
from cake_jax.report.tables import markdown, percent, spread
from cake_jax.run.run_folder import saved_data
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError


def main() -> None:
    """Measures all seeds, prints the tables, and writes all figures."""
    parser = Parser(__doc__)
    parser.add_argument("students", nargs="+", help="name=folder of a run, with {seed} in place of the seed")
    parser.add_argument("--seeds", default="0", help="seeds of the runs, separated by commas")
    parser.add_argument("--epsilons", default="0.02,0.05,0.1,0.2", help="largest changes of a pixel, as shares")
    parser.add_argument("--examples", type=int, default=1000, help="number of test inputs")
    parser.add_argument("--out", type=output_file, help="JSON file for all figures")
    flags = parser.parse_args()
    names = ["teacher", *(student.partition("=")[0] for student in flags.students)]
    if len(set(names)) < len(names) or not all(student.partition("=")[2] for student in flags.students):
        parser.error(f"{' '.join(flags.students)}: each must be NAME=FOLDER, each name once, and none 'teacher'")
    try:
        epsilons = [float(epsilon) for epsilon in flags.epsilons.split(",")]
        seeds = [_of_seed(flags.students, seed, epsilons, flags.examples) for seed in flags.seeds.split(",")]
    except (CakeError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print("\n\n".join(tables(seeds, epsilons)))
    write_results(flags.out, epsilons=epsilons, examples=flags.examples, seeds=seeds)


def _of_seed(students: list[str], seed: str, epsilons: list[float], examples: int) -> dict[str, Any]:
    """The result of `robustness` for the teacher and the students of one seed."""
    models: dict[str, Teacher] = {}
    for student in students:
        name, _, pattern = student.partition("=")
        folder = Path(pattern.replace("{seed}", seed))
        run = load_run(folder)
        if run.student is None or run.teacher is None:
            raise CakeError(f"{folder}: the run is not finished, or its teacher is not a white box")
        models.setdefault("teacher", run.teacher)
        models[name] = run.student
        if not _are_equal(run.teacher, models["teacher"]):
            raise CakeError(f"{folder}: its teacher is not that of the first run")
    dataset = data.load(saved_data(folder), models["teacher"].spec)
    x, y = dataset.test_x[:examples], dataset.test_y[:examples]
    return robustness(models, x, y, epsilons, jax.random.key(int(seed)))


def _are_equal(one: Teacher, other: Teacher) -> bool:
    (leaves, structure), (others, other_structure) = map(jax.tree.flatten, (one.variables, other.variables))
    return (one.spec, structure) == (other.spec, other_structure) and all(map(np.array_equal, leaves, others))


def tables(seeds: list[dict[str, Any]], epsilons: list[float]) -> list[str]:
    """The tables in Markdown, with means and standard deviations in percent over the seeds."""
    models = seeds[0]
    places = range(len(epsilons))

    def cell(*path: Any) -> str:
        """The text for the values at a path into the figures of each seed."""
        values: list[float] = []
        for figures in seeds:
            at: Any = figures
            for key in path:
                at = at[key]
            values.append(percent(at))
        return spread(values)

    def row(*path: str) -> list[str]:
        return [path[-1], path[0], *(cell(*path, place) for place in places)]

    shares = [f"{epsilon:g}" for epsilon in epsilons]
    attacks, kinds = [*models["teacher"]["attacks"]], [*models["teacher"]["accuracy"]]
    attacked = [row(model, "attacks", attack) for attack in attacks for model in models]
    transferred = [row(model, "transfer", other) for model in models for other in models[model]["transfer"]]
    return [
        markdown(("attack", "accuracy of", *shares), attacked),
        markdown(("accuracy of", f"{TRANSFERRED} on", *shares), transferred),
        *(
            markdown((name, *models), [[kind, *(cell(model, name, kind) for model in models)] for kind in kinds])
            for name in ("accuracy", "agreement")
        ),
    ]


if __name__ == "__main__":
    main()
