"""Measures what samples and students tell about the training data of their teachers.

    python scripts/privacy.py --config=configs/digits.py --dataset=digits --models=16 --workdir=runs/privacy \
        --out=privacy.json

The training data of the data set are divided at random: each of the models' teachers is trained on one half, so that
each example is in the training data of every second teacher. From each teacher come the samples and the student of the
config, and a student of the same architecture that learns from the teacher's training data. All runs are those of
`scripts/run.py`; finished ones are used as they are.

Each row of the first table is one thing that an attacker may have. He attacks it with the likelihood-ratio test of
Carlini et al. (2022), for which he has all the other models. `AUC` is 50 % for a blind guess. `members found` is the
share of the training data that he finds while he wrongly accuses 1 % of the other examples. For samples, the score is
the distance from an example to its nearest sample, in pixels or in the teacher's logits.

The second table shows how many samples have their nearest real example in the teacher's training data, in pixels and in
the teacher's logits. Without any effect, these are 50 %.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cake_jax import data, load_run
from cake_jax.arguments import Parser, output_file, write_results
from cake_jax.cli import many_runs
from cake_jax.cli.many_runs import Job
from cake_jax.evaluation.membership import confidence, leakage, likelihood_ratios
from cake_jax.files import write_atomically
from cake_jax.report.tables import markdown, percent, spread
from cake_jax.types import CakeError

# A student that learns from the teacher's logits on its real training data.
_REAL = ("--config.method=real", "--config.student.views.fresh=()")


def main() -> None:
    """Makes the runs, attacks each of them, prints the tables, and writes all figures."""
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, help="config file of the runs")
    parser.add_argument("--dataset", required=True, help="name of the data set that is divided")
    parser.add_argument("--data_dir", default="", help="where the data set is")
    parser.add_argument("--models", type=int, default=16, help="number of teachers")
    parser.add_argument("--workdir", type=Path, default=Path("runs/privacy"), help="folder of the runs")
    parser.add_argument("--out", type=output_file, help="JSON file for all figures")
    flags, others = many_runs.known_flags(parser)
    if flags.models < 6:
        parser.error(f"--models: {flags.models} is below 6; each image needs three models with it and three without it")
    try:
        dataset = data.load(data.DataSettings(flags.dataset, flags.data_dir))
        is_member = _make_runs(flags, dataset, others)
        measured = [_measure(flags.workdir, number, dataset, members) for number, members in enumerate(is_member)]
        figures = [{**one, "scores": {}} for one, _ in measured]
        for name in measured[0][1]:
            ratios = likelihood_ratios(np.stack([scores[name] for _, scores in measured]), is_member)
            for one, ratio, members in zip(figures, ratios, is_member, strict=True):
                one["scores"][name] = leakage(ratio, members)._asdict()
    except (CakeError, OSError) as error:
        sys.exit(f"error: {error}")
    print("\n\n".join(tables(figures)))
    write_results(flags.out, models=figures)


def _make_runs(flags: Any, dataset: data.Dataset, others: list[str]) -> np.ndarray:
    """Makes all runs, and returns whether each example is in the training data of each teacher, `[S, N]` bool."""
    rng, size = np.random.default_rng(0), len(dataset.train_x)
    halves = np.arange(flags.models) < flags.models // 2
    is_member = np.stack([rng.permutation(halves) for _ in range(size)], axis=1)
    flags.workdir.mkdir(parents=True, exist_ok=True)
    turns: tuple[list[Job], list[Job]] = ([], [])
    for number, members in enumerate(is_member):
        path = flags.workdir / f"half-{number}.npz"
        arrays = {
            "x_train": _pixels(dataset, dataset.train_x[members]),
            "y_train": dataset.train_y[members],
            "x_test": _pixels(dataset, dataset.test_x),
            "y_test": dataset.test_y,
        }
        if not path.exists():
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            write_atomically(path, buffer.getvalue())
        with np.load(path) as content:
            if any(not np.array_equal(content[name], array) for name, array in arrays.items()):
                raise CakeError(f"{path}: holds other data; use another --workdir")
        arguments = [*others, "--config.dataset.name=npz", f"--config.dataset.data_dir={path}"]
        arguments.append(f"--config.seed={number}")
        first = flags.workdir / f"samples-{number}"
        turns[0].append(Job(flags.config, first, arguments))
        from_run = f"--config.teacher.from_run={first}"
        turns[1].append(Job(flags.config, flags.workdir / f"real-{number}", [*arguments, from_run, *_REAL]))
    for jobs in turns:
        many_runs.end(list(many_runs.run_all(jobs)))
    return is_member


def _pixels(dataset: data.Dataset, x: np.ndarray) -> np.ndarray:
    """Pixels between 0 and 1, as a user's own data have them; as they are, if their range is not known."""
    spec, pixels = dataset.spec, dataset.spec.denormalize(x)
    if spec.low is None or spec.high is None:
        return pixels
    return (pixels - spec.low) / (spec.high - spec.low)


def _measure(
    workdir: Path, number: int, dataset: data.Dataset, members: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of one teacher and what was made from it: accuracies and nearest members, and the scores of all examples."""
    run, real = load_run(workdir / f"samples-{number}"), load_run(workdir / f"real-{number}")
    models = {"teacher": run.teacher, "student of samples": run.student, "student of training data": real.student}
    pixels, y = _pixels(dataset, dataset.train_x), dataset.train_y
    scores, accuracy = {}, {}
    for name, model in models.items():
        if model is None:
            raise CakeError(f"{workdir}: run {number} lacks its {name}")
        scores[name] = confidence(model.predict(model.spec.normalize(pixels)), y)
        answers = model.predict(model.spec.normalize(_pixels(dataset, dataset.test_x))).argmax(-1)
        accuracy[name] = float(np.mean(answers == dataset.test_y))
    teacher, samples = run.teacher, run.samples.select()
    assert teacher is not None
    spaces = {
        "pixels": (pixels.reshape(len(pixels), -1), teacher.spec.denormalize(samples.x).reshape(len(samples.x), -1)),
        "logits": (teacher.predict(teacher.spec.normalize(pixels)), samples.logits),
    }
    nearest = {}
    for space, (points, made) in spaces.items():
        distance, _ = NearestNeighbors(n_neighbors=1).fit(made).kneighbors(points)
        scores[f"samples, by {space}"] = -np.log(distance[:, 0] + 1e-6)
        neighbours = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(made, return_distance=False)
        nearest[space] = float(np.mean(members[neighbours[:, 0]]))
    return {"accuracy": accuracy, "nearest_members": nearest}, scores


def tables(figures: list[dict[str, Any]]) -> list[str]:
    """The tables in Markdown, with means and standard deviations in percent over the models."""

    def cell(values: list[float]) -> str:
        return spread([percent(value) for value in values])

    attacked = [
        (
            name,
            cell([one["scores"][name]["auc"] for one in figures]),
            cell([one["scores"][name]["found"] for one in figures]),
            cell([one["accuracy"][name] for one in figures]) if name in figures[0]["accuracy"] else "-",
        )
        for name in figures[0]["scores"]
    ]
    nearest = [(kind, cell([one["nearest_members"][kind] for one in figures])) for kind in ("pixels", "logits")]
    return [
        markdown(("attacked", "AUC, %", "members found, %", "test accuracy, %"), attacked),
        markdown(("distance in", "samples nearest to a member, %"), nearest),
    ]


if __name__ == "__main__":
    main()
