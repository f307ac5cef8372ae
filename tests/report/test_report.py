"""Figures, the HTML report, and the summary table."""

import base64
import json
from html.parser import HTMLParser

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from cake_jax import report
from cake_jax.data import Dataset
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import from_function
from cake_jax.types import DataSpec, SampleBatch

PLANE = DataSpec((2,), 3)


def plane(weights):
    """A linear model of the plane."""
    weights = jnp.asarray(weights, jnp.float32)
    return from_function(lambda x: x @ weights, DataSpec((2,), weights.shape[1]))


TEACHER = plane([[1.0, -1.0, 0.3], [0.2, 0.1, -1.0]])
STUDENT = plane([[1.0, 0.3, -1.0], [0.2, -1.0, 0.1]])


def image_model(channels=1, **fields):
    spec = DataSpec((4, 4, channels), 3, **fields)
    return from_function(lambda x: x.reshape(len(x), -1)[:, :3], spec)


def samples(spec, sets=2, per_set=3, seed=0):
    rng, count = np.random.default_rng(seed), sets * per_set
    return SampleBatch(
        x=rng.normal(size=(count, *spec.shape)).astype(np.float32),
        logits=rng.normal(size=(count, spec.num_classes)).astype(np.float32),
        target=np.arange(count, dtype=np.int32) % spec.num_classes,
        step_size=np.full(count, 0.5, np.float32),
        set_index=np.repeat(np.arange(5, 5 + sets), per_set).astype(np.int32),
    )


def dataset(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 2)).astype(np.float32), rng.integers(0, 3, 20).astype(np.int32)
    return Dataset(PLANE, x, y, x, y)


def training_log(path, stages=("teacher", "student"), epochs=3, validation=True, loss=0.5):
    log = MetricsLog(path / "metrics.jsonl")
    for stage in stages:
        for epoch in range(1, epochs + 1):
            figures = {"loss": loss / epoch, "accuracy": 1 - 0.5 / epoch}
            held_out = {f"validation_{name}": value * 0.9 if validation else None for name, value in figures.items()}
            log.write(stage, epoch, epoch=epoch, **figures, **held_out, seconds=1.0)
    return log


def synthesis_log(path, batches=3, gap=1.0):
    log = MetricsLog(path / "metrics.jsonl")
    for batch in range(batches):
        info = {"step_size": 0.5**batch, "cls": 1.0, "contr": 0.1, "tv": 0.0, "entropy": 0.1, "target_accuracy": 0.9}
        log.write("synthesis", batch, **info, logit_gap_start=gap, logit_gap=0.5 * gap, seconds=0.1)
    return log


def picture(figure, folder):
    """The pixels of a figure, by way of a PNG file."""
    path = folder / "figure.png"
    figure.savefig(path, dpi=60)
    return matplotlib.image.imread(path)


def results(**changes):
    """The content of `results.json` of a run with every stage."""
    return {
        "config_name": "default",
        "variant": "",
        "method": "cake",
        "seed": 3,
        "teacher": {"test_accuracy": 0.9125, "num_params": 12345},
        "student": {"test_accuracy": 0.875, "test_agreement": 0.9375, "test_kl": 0.01234, "num_params": 942},
        "samples": {"count": 2000, "num_steps": 250, "teacher_queries": 502000},
        "seconds": {"teacher": 1.25, "synthesis": 2.5, "student": 3.0, "total": 6.75},
        **changes,
    }


NOTHING = {
    "teacher": {"test_accuracy": None, "num_params": None},
    "student": {"test_accuracy": None, "test_agreement": None, "test_kl": None, "num_params": None},
}

FIGURES = {
    "training": lambda path: report.training_curves(training_log(path)),
    "training of the teacher alone": lambda path: report.training_curves(training_log(path, stages=["teacher"])),
    "training of one epoch": lambda path: report.training_curves(training_log(path, epochs=1)),
    "training without validation": lambda path: report.training_curves(training_log(path, validation=False)),
    "synthesis": lambda path: report.synthesis_curves(synthesis_log(path)),
    "synthesis of one mini-batch": lambda path: report.synthesis_curves(synthesis_log(path, batches=1)),
    "gray samples": lambda path: report.sample_grid(
        samples(image_model().spec), image_model(low=0.0, high=1.0, class_names=("cat", "dog", "emu"))
    ),
    "colour samples": lambda path: report.sample_grid(samples(image_model(3).spec), image_model(3, low=0.0, high=1.0)),
    "samples without limits": lambda path: report.sample_grid(samples(image_model().spec), image_model()),
    "one sample": lambda path: report.sample_grid(samples(image_model().spec, 1, 1), image_model()),
    "boundaries": lambda path: report.decision_boundaries(TEACHER, {"student": (STUDENT, samples(PLANE))}, dataset()),
    "boundaries of the teacher alone": lambda path: report.decision_boundaries(
        TEACHER, {"student": (None, samples(PLANE))}, None
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn(name, tmp_path):
    pixels = picture(FIGURES[name](tmp_path), tmp_path)
    assert min(pixels.shape[:2]) >= 30
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10
    assert pixels[..., :3].std() > 0.02


@pytest.mark.parametrize(
    "draw",
    [
        lambda path, x: report.training_curves(training_log(path, loss=[0.5, 5.0][x])),
        lambda path, x: report.training_curves(training_log(path, stages=[["teacher"], ["student"]][x])),
        lambda path, x: report.training_curves(training_log(path, validation=[False, True][x])),
        lambda path, x: report.synthesis_curves(synthesis_log(path, gap=[1.0, 2.0][x])),
        lambda path, x: report.sample_grid(samples(image_model().spec, seed=x), image_model(low=-3.0, high=3.0)),
        lambda path, x: report.decision_boundaries([TEACHER, STUDENT][x], {"student": (None, samples(PLANE))}, None),
        lambda path, x: report.decision_boundaries(TEACHER, {"student": ([TEACHER, STUDENT][x], samples(PLANE))}, None),
        lambda path, x: report.decision_boundaries(TEACHER, {"student": (None, samples(PLANE, seed=x))}, None),
        lambda path, x: report.decision_boundaries(TEACHER, {"student": (None, samples(PLANE))}, dataset(x)),
    ],
    ids=["loss", "stage", "validation", "gap", "images", "teacher", "student", "samples", "data"],
)
def test_figure_shows_its_input(draw, tmp_path):
    pictures = []
    for x in (0, 1):
        folder = tmp_path / str(x)
        folder.mkdir()
        pictures.append(picture(draw(folder, x), folder))
    first, second = pictures
    assert first.shape == second.shape
    assert np.mean(np.abs(first - second).max(axis=-1) > 0.1) > 0.0005


def test_sample_grid_shows_one_set_a_row(tmp_path):
    figure = report.sample_grid(samples(image_model().spec, sets=4, per_set=3), image_model(), columns=2, rows=3)
    images = [axes.images[0].get_array() for axes in figure.axes]
    assert len(images) == 3 * 2
    titles = [axes.get_title() for axes in figure.axes]
    batch = samples(image_model().spec, sets=4, per_set=3)
    probabilities = np.exp(batch.logits) / np.exp(batch.logits).sum(axis=1, keepdims=True)
    shown = [0, 1, 3, 4, 6, 7]
    assert titles == [f"{probabilities[row].argmax()} {probabilities[row].max():.2f}" for row in shown]


def test_sample_grid_with_sets_of_two_sizes():
    batch = samples(image_model().spec, sets=2, per_set=3).select(np.array([True, True, True, True, False, False]))
    figure = report.sample_grid(batch, image_model())
    assert sum(len(axes.images) for axes in figure.axes) == 4


class Page(HTMLParser):
    """What a page refers to, shows and consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name not in ("alt", "lang", "charset")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def write(tmp_path):
    """Writes the report of a run of a 2-dimensional or image set; returns its folder and page."""

    def write_report(content=None, *, teacher=TEACHER, student=STUDENT, with_log=True, with_samples=True, data=None):
        (tmp_path / "config.json").write_text(json.dumps({"note": "<script>alert(1)</script> & more"}))
        log, store = MetricsLog(tmp_path / "metrics.jsonl"), SampleStore(tmp_path / "samples")
        if with_log:
            training_log(tmp_path)
            synthesis_log(tmp_path)
        if with_samples:
            store.append(0, samples(teacher.spec if teacher else PLANE))
        report.write(tmp_path, content or results(), log, teacher, student, store, data)
        return tmp_path, Page((tmp_path / "report.html").read_text())

    return write_report


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"data": dataset()}, {"training", "synthesis", "boundaries"}),
        ({"student": None}, {"training", "synthesis", "boundaries"}),
        ({"teacher": image_model(), "student": None}, {"training", "synthesis", "samples"}),
        ({"with_samples": False}, {"training", "synthesis"}),
        ({"teacher": None, "student": None, "with_log": False}, set()),
    ],
)
def test_report_embeds_its_figures_and_refers_to_nothing_else(write, options, figures):
    folder, page = write(**options)
    files = {path.stem: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert set(files) == figures
    prefix = "data:image/png;base64,"
    assert all(reference.startswith(prefix) for reference in page.references)
    embedded = [base64.b64decode(reference.removeprefix(prefix)) for reference in page.references]
    assert sorted(embedded) == sorted(files.values())
    assert page.tags.count("img") == len(figures)
    assert not {"script", "link", "iframe", "object", "a", "base"} & set(page.tags)
    assert "http" not in page.text
    assert "url(" not in page.text
    assert "@import" not in page.text
    for path in (folder / "figures").iterdir():
        assert matplotlib.image.imread(path).std() > 0.02


def test_report_shows_table_results_and_config(write):
    folder, page = write()
    for line in report.table(results()).splitlines():
        assert all(part.strip() in page.text for part in line.split("  "))
    assert json.dumps(results(), indent=1) in page.text
    assert (folder / "config.json").read_text() in page.text


@pytest.mark.parametrize("field", ["config_name", "variant", "method"])
def test_report_escapes(write, field):
    folder, page = write(results(**{field: "<b>&amp;"}))
    assert not {"b", "script"} & set(page.tags)
    assert page.text.count("<b>&amp;") >= 3  # title, heading, results
    assert "<b>" not in (folder / "report.html").read_text()


def test_report_can_be_written_again(write):
    write()
    folder, page = write(results(seed=77), with_log=False, with_samples=False)
    assert "77" in page.text
    assert not list(folder.glob("*.tmp"))


def test_table():
    text = report.table(results())
    for part in ("cake, 3", "91.25%", "12,345", "87.50%", "93.75%", "0.0123", "2,000", "250", "502,000", "6.8"):
        assert part in text, part
    names = [line.split("  ")[0] for line in text.splitlines()]
    assert len(names) == len(set(names)) == 8


def test_table_shows_a_dash_for_none():
    lines = report.table(results(**NOTHING)).splitlines()
    dashes = [line for line in lines if line.split("  ", 1)[1].strip(" ").startswith("-")]
    assert [line.split("  ")[0] for line in dashes] == [
        "teacher test accuracy",
        "student test accuracy",
        "student agrees with teacher",
        "KL(teacher || student)",
    ]
    assert "None" not in "".join(lines)


def test_report_of_a_run_without_evaluation(write):
    _, page = write(results(**NOTHING))
    assert page.text.count("null") == 6


def test_grid_covers_the_square():
    points, shape = report.grid()
    assert points.shape == (shape[0] * shape[1], 2) == (40_000, 2)
    np.testing.assert_array_equal(points.min(axis=0), [-2, -2])
    np.testing.assert_array_equal(points.max(axis=0), [2, 2])
    assert len(np.unique(points, axis=0)) == len(points)


def test_grid_agreement():
    right, left, above = (plane(weights) for weights in ([[1, -1], [0, 0]], [[-1, 1], [0, 0]], [[0, 0], [1, -1]]))
    assert report.grid_agreement(TEACHER, TEACHER) == 1
    assert report.grid_agreement(right, left) == 0
    assert report.grid_agreement(right, above) == pytest.approx(0.5)
    assert isinstance(report.grid_agreement(right, above), float)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(image_model(), image_model()), (None, TEACHER), (TEACHER, None), (None, None)],
)
def test_grid_agreement_of_what_cannot_be_compared(student, teacher):
    assert report.grid_agreement(student, teacher) is None
