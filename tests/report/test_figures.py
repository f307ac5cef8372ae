"""The figures of a run: each is drawn, shows its input, and suits some runs only."""

import made_up
import matplotlib.image
import numpy as np
import pytest
from made_up import PLANE, STUDENT, TEACHER, image_model

from cake_jax.report import FIGURES, decision_boundaries
from cake_jax.report.figures.rounds import rounds_curves
from cake_jax.report.figures.samples import sample_grid
from cake_jax.report.figures.synthesis import synthesis_curves
from cake_jax.report.figures.training import training_curves


def pixels_of(figure, folder):
    """The pixels of a figure, read from a PNG file."""
    figure.savefig(folder / "figure.png", dpi=60)
    return matplotlib.image.imread(folder / "figure.png")


def boundaries(student=None, data=None, teacher=TEACHER, seed=0):
    return decision_boundaries(teacher, {"student": (student, made_up.samples(PLANE, seed=seed))}, data)


def grid_of(model, **options):
    return sample_grid(made_up.samples(model.spec, **options), model)


def rounds_of(**options):
    return rounds_curves(made_up.guide_rounds(**options), made_up.results()["student"])


DRAWINGS = {
    "training": lambda path: training_curves(made_up.training_log(path)),
    "training of the teacher alone": lambda path: training_curves(made_up.training_log(path, stages=["teacher"])),
    "training of one epoch": lambda path: training_curves(made_up.training_log(path, epochs=1)),
    "training without validation": lambda path: training_curves(made_up.training_log(path, validation=False)),
    "synthesis": lambda path: synthesis_curves(made_up.synthesis_log(path)),
    "synthesis of one mini-batch": lambda path: synthesis_curves(made_up.synthesis_log(path, batches=1)),
    "rounds": lambda path: rounds_of(),
    "rounds without evaluation of the final student": lambda path: rounds_curves(
        made_up.guide_rounds(), made_up.NOT_EVALUATED["student"]
    ),
    "gray samples": lambda path: grid_of(image_model(low=0.0, high=1.0, class_names=("cat", "dog", "emu"))),
    "colour samples": lambda path: grid_of(image_model(3, low=0.0, high=1.0)),
    "samples without limits": lambda path: grid_of(image_model()),
    "one sample": lambda path: grid_of(image_model(), sets=1, per_set=1),
    "boundaries": lambda path: boundaries(STUDENT, made_up.dataset()),
    "boundaries of the teacher alone": lambda path: boundaries(),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figure_is_drawn(name, tmp_path):
    pixels = pixels_of(DRAWINGS[name](tmp_path), tmp_path)
    assert min(pixels.shape[:2]) >= 30
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10
    assert pixels[..., :3].std() > 0.02


@pytest.mark.parametrize(
    "draw",
    [
        lambda path, i: training_curves(made_up.training_log(path, loss=[0.5, 5.0][i])),
        lambda path, i: training_curves(made_up.training_log(path, stages=[["teacher"], ["student"]][i])),
        lambda path, i: training_curves(made_up.training_log(path, validation=[False, True][i])),
        lambda path, i: synthesis_curves(made_up.synthesis_log(path, gap=[1.0, 2.0][i])),
        lambda path, i: rounds_of(agreement=[0.75, 0.5][i]),
        lambda path, i: grid_of(image_model(low=-3.0, high=3.0), seed=i),
        lambda path, i: boundaries(teacher=[TEACHER, STUDENT][i]),
        lambda path, i: boundaries([TEACHER, STUDENT][i]),
        lambda path, i: boundaries(seed=i),
        lambda path, i: boundaries(data=made_up.dataset(i)),
    ],
    ids=["loss", "stage", "validation", "gap", "rounds", "images", "teacher", "student", "samples", "data"],
)
def test_figure_shows_its_input(draw, tmp_path):
    pictures = []
    for i in (0, 1):
        folder = tmp_path / str(i)
        folder.mkdir()
        pictures.append(pixels_of(draw(folder, i), folder))
    first, second = pictures
    assert first.shape == second.shape
    assert np.mean(np.abs(first - second).max(axis=-1) > 0.1) > 0.0005


def test_synthesis_curves_have_a_panel_for_each_diagnostic(tmp_path):
    axes = synthesis_curves(made_up.synthesis_log(tmp_path)).axes
    labels = [axis.get_ylabel() for axis in axes if axis.axison]
    assert labels == ["step size", "cls", "contr", "prior", "entropy", "target accuracy", "logit gap within a set"]
    start, end = axes[6].lines
    np.testing.assert_allclose(start.get_ydata(), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(end.get_ydata(), [0.5, 0.5, 0.5])


def test_sample_grid_shows_one_set_in_a_row():
    batch = made_up.samples(image_model().spec, sets=4, per_set=3)
    figure = sample_grid(batch, image_model(), columns=2, rows=3)
    assert [len(axes.images) for axes in figure.axes] == [1] * (3 * 2)
    probabilities = np.exp(batch.logits) / np.exp(batch.logits).sum(axis=1, keepdims=True)
    shown = [0, 1, 3, 4, 6, 7]
    expected = [f"{probabilities[row].argmax()} {probabilities[row].max():.2f}" for row in shown]
    assert [axes.get_title() for axes in figure.axes] == expected


def test_sample_grid_takes_sets_of_different_sizes():
    batch = made_up.samples(image_model().spec, sets=2, per_set=3)
    figure = sample_grid(batch.select(np.array([True, True, True, True, False, False])), image_model())
    assert sum(len(axes.images) for axes in figure.axes) == 4


def test_boundaries_have_a_panel_for_each_student():
    batch, same = made_up.samples(PLANE), made_up.plane_model(2 * TEACHER(np.eye(2, dtype=np.float32)))
    students = {"same": (same, batch), "other": (STUDENT, batch), "none": (None, batch)}
    figure = decision_boundaries(TEACHER, students, None, columns=2)
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles[:2] == ["teacher", "same\nagrees on 100.0% of the square"]
    assert titles[2].startswith("other\n")
    assert len(titles) == 3
    assert [len(axes.collections) for axes in figure.axes[:3]] == [0, 1, 1]  # samples are on the student's panel


WITH_ROUNDS = made_up.results(rounds=made_up.guide_rounds())


@pytest.mark.parametrize(
    ("run", "suitable"),
    [
        ({}, {"training", "synthesis", "boundaries"}),
        ({"student": None}, {"training", "synthesis", "boundaries"}),
        (
            {"content": WITH_ROUNDS},
            {"training", "synthesis", "rounds", "boundaries"},
        ),
        ({"content": made_up.results(rounds=[])}, {"training", "synthesis", "boundaries"}),
        ({"teacher": image_model(), "student": None}, {"training", "synthesis", "samples"}),
        ({"has_samples": False}, {"training", "synthesis"}),
        ({"has_log": False}, {"boundaries"}),
        ({"teacher": None, "student": None, "has_log": False}, set()),
    ],
)
def test_a_run_has_the_figures_that_suit_it(run, suitable, tmp_path):
    record = made_up.record(tmp_path, **run)
    assert {name for name, draw in FIGURES.items() if draw(record)} == suitable
