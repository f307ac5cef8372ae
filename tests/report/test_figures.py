"""The figures of a run: each is drawn, shows its input, and suits some runs only."""

import made_up
import matplotlib.image
import numpy as np
import pytest
from made_up import PLANE, STUDENT, TEACHER, image_model

from cake_jax.report import FIGURES, decision_boundaries
from cake_jax.report.figures.classes import histogram
from cake_jax.report.figures.confusion import confusion
from cake_jax.report.figures.rounds import rounds_curves
from cake_jax.report.figures.samples import class_grid, sample_grid
from cake_jax.report.figures.synthesis import synthesis_curves
from cake_jax.report.figures.training import training_curves


def pixels_of(figure, folder):
    """The pixels of a figure, read from a PNG file."""
    figure.savefig(folder / "figure.png", dpi=60)
    return matplotlib.image.imread(folder / "figure.png")


def boundaries(student=None, data=None, teacher=TEACHER, seed=0):
    return decision_boundaries(teacher, {"student": (student, made_up.samples(PLANE, seed=seed))}, data)


def grid_of(model, **options):
    return sample_grid({0: made_up.samples(model.spec, **options)}, model.spec)


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
    "confusion": lambda path: confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), ("cat", "dog")),
    "confusion of many classes": lambda path: confusion(np.arange(50), np.arange(50), ("class",) * 50),
    "classes of the samples": lambda path: histogram(np.array([3, 0, 5]), ("cat", "dog", "emu")),
    "many classes of the samples": lambda path: histogram(np.arange(50), ("class",) * 50),
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


def test_synthesis_curves_have_the_mini_batches_in_order(tmp_path):
    """Several processes write their lines as they are made."""
    log = made_up.synthesis_log(tmp_path)
    lines = log.path.read_text().splitlines()
    log.path.write_text("\n".join([lines[2], *lines[:2]]) + "\n")
    line = synthesis_curves(log).axes[0].lines[0]
    assert [*zip(*line.get_data(), strict=True)] == [(0, 1.0), (1, 0.5), (2, 0.25)]


def test_synthesis_curves_have_a_panel_for_each_diagnostic_that_changes(tmp_path):
    axes = synthesis_curves(made_up.synthesis_log(tmp_path)).axes
    labels = [axis.get_ylabel().replace("\n", " ") for axis in axes if axis.axison]
    assert labels == [
        "step size",
        "classification loss",
        "contrastive loss",
        "made for the class that the teacher sees",
        "differences of the teacher's answers within a set",
    ]
    start, end = axes[4].lines
    np.testing.assert_allclose(start.get_ydata(), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(end.get_ydata(), [0.5, 0.5, 0.5])


def test_sample_grid_shows_the_beginning_of_each_mini_batch_in_a_row():
    spec = image_model().spec
    batches = {0: made_up.samples(spec, sets=4, per_set=3), 7: made_up.samples(spec, sets=4, per_set=3, seed=1)}
    figure = sample_grid(batches, spec)
    expected = []
    for batch in batches.values():
        probabilities = np.exp(batch.logits) / np.exp(batch.logits).sum(axis=1, keepdims=True)
        expected += [f"{row.argmax()} {row.max():.2f}" for row in probabilities[:10]]
    assert [axes.get_title() for axes in figure.axes] == expected
    assert [figure.axes[place].texts[0].get_text() for place in (0, 10)] == ["0\n0.5", "7\n0.5"]


def test_class_grid_shows_the_first_sample_of_each_class():
    spec = image_model(low=0.0, high=1.0, class_names=("cat", "dog", "emu")).spec
    some, other = made_up.samples(spec), made_up.samples(spec, seed=1)
    some.logits[:] = np.eye(3)[[2, 2, 0, 0, 2, 0]]
    figure = class_grid({"first": (some, spec), "second": (other, spec)})
    assert [axes.get_title() for axes in figure.axes] == ["cat", "dog", "emu"] * 2
    assert [figure.axes[place].texts[0].get_text() for place in (0, 3)] == ["first", "second"]
    for column, place in ((0, 2), (2, 0)):
        (image,) = figure.axes[column].images
        np.testing.assert_allclose(image.get_array(), np.clip(spec.denormalize(some.x[place])[..., 0], 0, 1), atol=1e-6)
    assert not figure.axes[1].images, "the teacher assigns no sample of the first run to the class dog"


def test_sample_grid_takes_mini_batches_of_different_sizes():
    spec = image_model().spec
    batches = {number: made_up.samples(spec, sets=1, per_set=count) for number, count in enumerate((3, 1))}
    assert sum(len(axes.images) for axes in sample_grid(batches, spec).axes) == 4


def test_samples_of_mini_batches_from_first_to_last_are_shown(tmp_path):
    record = made_up.record(tmp_path, teacher=image_model(), has_samples=False)
    for batch in range(11):
        record.samples.append(batch, made_up.samples(image_model().spec, seed=batch))
    figure = FIGURES["samples"](record).figure
    shown = [axes.texts[0].get_text().split("\n")[0] for axes in figure.axes if axes.texts]
    assert shown == ["0", "2", "4", "6", "8", "10"]


def test_confusion_has_the_shares_of_each_row():
    teacher, student = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    (axes,) = confusion(teacher, student, ("cat", "dog", "emu", "fox")).axes
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[66.7, 33.3, 0, 0], [0, 50, 50, 0], [0, 0, 100, 0], [0, 0, 0, 0]], atol=0.05)
    assert {text.get_text() for text in axes.texts} == {"67", "33", "50", "100"}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "emu", "fox"]


def test_the_histogram_counts_the_teacher_s_classes_of_all_mini_batches(tmp_path):
    record = made_up.record(tmp_path)
    record.samples.append(1, made_up.samples(PLANE, seed=1))
    expected = np.bincount(record.samples.select().logits.argmax(-1), minlength=3)
    (axes,) = FIGURES["classes"](record).figure.axes
    assert [bar.get_height() for bar in axes.patches] == expected.tolist()
    assert sum(expected) == 12


def test_boundaries_connect_the_samples_of_a_set():
    batch = made_up.samples(PLANE, sets=4, per_set=3)
    axes = decision_boundaries(TEACHER, {"student": (STUDENT, batch)}, None).axes[1]
    np.testing.assert_array_equal([line.get_xydata() for line in axes.lines], batch.x.reshape(4, 3, 2))


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
        ({}, {"training", "synthesis", "boundaries", "classes"}),
        ({"answers": made_up.answers()}, {"training", "synthesis", "boundaries", "classes", "confusion"}),
        ({"answers": made_up.answers(None)}, {"training", "synthesis", "boundaries", "classes"}),
        ({"student": None}, {"training", "synthesis", "boundaries", "classes"}),
        ({"content": WITH_ROUNDS}, {"training", "synthesis", "rounds", "boundaries", "classes"}),
        ({"content": made_up.results(rounds=[])}, {"training", "synthesis", "boundaries", "classes"}),
        ({"teacher": image_model(), "student": None}, {"training", "synthesis", "samples", "classes"}),
        ({"teacher": None, "student": image_model()}, {"training", "synthesis", "samples", "classes"}),
        ({"has_samples": False}, {"training", "synthesis"}),
        ({"has_log": False}, {"boundaries", "classes"}),
        ({"teacher": None, "student": None, "has_log": False}, {"classes"}),
        ({"teacher": None, "student": None, "has_log": False, "has_samples": False}, set()),
    ],
)
def test_a_run_has_the_figures_that_suit_it(run, suitable, tmp_path):
    record = made_up.record(tmp_path, **run)
    assert {name for name, draw in FIGURES.items() if draw(record)} == suitable
