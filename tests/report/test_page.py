"""The HTML report of a run."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import made_up
import matplotlib.image
import numpy as np
import pytest
from made_up import image_model
from matplotlib.figure import Figure

from cake_jax import report
from cake_jax.config import default
from cake_jax.evaluation import Answers
from cake_jax.report.page import class_rows


class Page(HTMLParser):
    """The tags of a page, what its attributes refer to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        self.text += " " if tag in ("span", "td", "th") else ""


ENVIRONMENT = {
    "command": "python run.py --config=a",
    "date": "2026-01-02",
    "jax": "1",
    "commit": "c",
    "devices": ["cpu", "cpu"],
}


@pytest.fixture
def written(tmp_path):
    """A function that writes the report of a made-up run, and returns its page."""
    config = {"note": "<script>alert(1)</script> & more", **json.loads(default().to_json())}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def write(**run):
        report.page.write(made_up.record(tmp_path, **run))
        return Page((tmp_path / "report.html").read_text())

    return write


@pytest.mark.parametrize(
    ("run", "figures"),
    [
        (
            {"data": made_up.dataset(), "answers": made_up.answers()},
            {"training", "synthesis", "boundaries", "classes", "confusion"},
        ),
        ({"teacher": image_model(), "student": None}, {"training", "synthesis", "samples", "classes"}),
        ({"teacher": None, "student": None, "has_log": False, "has_samples": False}, set()),
    ],
)
def test_page_embeds_its_figures_and_needs_no_other_file(written, tmp_path, run, figures):
    page = written(**run)
    files = {path.stem: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert set(files) == figures
    assert all(matplotlib.image.imread(path).std() > 0.02 for path in (tmp_path / "figures").iterdir())
    prefix = "data:image/png;base64,"
    assert all(reference.startswith(prefix) for reference in page.references)
    embedded = [base64.b64decode(reference.removeprefix(prefix)) for reference in page.references]
    assert sorted(embedded) == sorted(files.values())
    assert page.tags.count("img") == len(figures)
    assert not {"script", "link", "iframe", "object", "a", "base"} & set(page.tags)
    assert not any(reference in page.text for reference in ("http", "url(", "@import"))


def test_page_shows_an_added_figure(written, tmp_path, monkeypatch):
    def draw(record):
        figure = Figure()
        figure.subplots().plot([record.results["seed"]])
        return report.Drawing("Extra & more", "It shows <all>.", figure)

    monkeypatch.setitem(report.FIGURES, "extra", draw)
    monkeypatch.setitem(report.FIGURES, "unsuitable", lambda record: None)
    page = written(has_log=False)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"boundaries", "classes", "extra"}
    assert "Extra & more" in page.text
    assert "It shows <all>." in page.text
    assert page.tags.count("img") == 3


def test_page_shows_summary_results_and_config(written, tmp_path):
    page = written(has_log=False, has_samples=False)
    for line in report.summary(made_up.results()).splitlines():
        assert all(part.strip() in page.text for part in line.split("  "))
    assert json.dumps(made_up.results(), indent=1) in page.text
    assert (tmp_path / "config.json").read_text() in page.text


@pytest.mark.parametrize("field", ["config_name", "variant", "method"])
def test_page_escapes_text(written, tmp_path, field):
    page = written(content=made_up.results(**{field: "<b>&amp;"}), has_log=False, has_samples=False)
    assert page.tags.count("b") == 2  # teacher and student
    assert "script" not in page.tags
    assert page.text.count("<b>&amp;") >= 3  # title, heading, results
    assert "<b>&amp;" not in (tmp_path / "report.html").read_text()


def test_page_is_written_again(written, tmp_path):
    written(has_log=False)
    assert "77" in written(content=made_up.results(seed=77), has_log=False, has_samples=False).text
    assert not list(tmp_path.glob("*.tmp"))


def test_page_of_a_run_without_evaluation(written):
    content = made_up.results(**made_up.NOT_EVALUATED)
    text = written(content=content, has_log=False, has_samples=False).text
    assert json.dumps(content, indent=1).count("null") == 7
    assert json.dumps(content, indent=1) in text
    assert "Accuracy and agreement were not measured" not in text  # there is no student


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, ["student is right 87.5 %", "teacher is right 91.2 %", "guessing is right 33.3 %"], ["real training"]),
        ({}, ["student agrees with teacher 93.8 %", "2,000 synthetic samples", "500,000 gradients"], ["not measured"]),
        ({}, ["of 12,345 parameters", "942 parameters"], []),
        ({"method": "real"}, ["2,000 real training examples"], ["saw no real data", "without data"]),
        (made_up.NOT_EVALUATED, [], ["is right", "agrees with teacher 9"]),
        ({"warnings": ["the student fell"]}, ["The student fell."], []),
        (
            {"environment": ENVIRONMENT},
            ["python run.py --config=a", "2026-01-02, JAX 1, c, seed 3", "on 2 ", " cpu."],
            [],
        ),
    ],
)
def test_page_says_in_words_what_was_measured(written, changes, said, unsaid):
    text = " ".join(written(content=made_up.results(**changes)).text.split())
    assert all(part in text for part in said)
    assert not any(part in text for part in unsaid)


def test_class_rows_are_the_shares_of_each_class():
    student, teacher = np.eye(3)[[0, 1, 1, 1, 1]], np.eye(3)[[0, 1, 1, 1, 2]]
    answers = Answers(np.zeros((5, 2)), np.array([0, 0, 1, 1, 1]), 3, student, teacher)
    rows = class_rows(answers, ("cat", "dog", "emu"))
    assert rows == [("cat", 2, 0.5, 0.5, 1.0), ("dog", 3, pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3))]
    assert class_rows(answers._replace(teacher=None), ("cat", "dog", "emu"))[0] == ("cat", 2, None, 0.5, None)
    assert class_rows(answers._replace(classes=None), ("cat", "dog", "emu")) == []


# Shows the page in a frame of a given width, and writes what it finds into the document.
_FRAME = """<!doctype html><meta charset="utf-8"><iframe id="page" style="border:0;width:%dpx;height:900px"></iframe>
<p id="found"></p><script>
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument;
  const loaded = [...page.images].filter(image => image.complete && image.naturalWidth > 0).length;
  const found = {images: page.images.length, loaded, overflow: page.documentElement.scrollWidth - %d};
  document.getElementById("found").textContent = JSON.stringify(found);
};
frame.srcdoc = %s;
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_every_figure_without_an_error(written, tmp_path, width):
    written(answers=made_up.answers(), data=made_up.dataset())
    page = json.dumps((tmp_path / "report.html").read_text()).replace("</", "<\\/")
    (tmp_path / "frame.html").write_text(_FRAME % (width, width, page))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    found = json.loads(re.search(r'<p id="found">(.*?)</p>', done.stdout)[1])
    assert found["images"] == found["loaded"] == 5
    assert found["overflow"] <= 0


def test_names_of_classes_are_neither_html_nor_formulas(written):
    names = ("<script>alert(1)</script>", r"$\frac$", "cat")
    model = image_model(low=0.0, high=1.0, class_names=names)
    page = written(teacher=model, student=model, answers=made_up.answers(model, model))
    assert "script" not in page.tags
    assert all(name in page.text for name in names)
