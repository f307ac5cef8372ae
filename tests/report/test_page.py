"""The HTML report of a run."""

import base64
import json
from html.parser import HTMLParser

import made_up
import matplotlib.image
import pytest
from made_up import image_model
from matplotlib.figure import Figure

from cake_jax import report


class Page(HTMLParser):
    """The tags of a page, its attributes' values and its text."""

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
def written(tmp_path):
    """A function that writes the report of a made-up run, and returns its page."""
    (tmp_path / "config.json").write_text(json.dumps({"note": "<script>alert(1)</script> & more"}))

    def write(**run):
        report.write(made_up.record(tmp_path, **run))
        return Page((tmp_path / "report.html").read_text())

    return write


@pytest.mark.parametrize(
    ("run", "figures"),
    [
        ({"data": made_up.dataset()}, {"training", "synthesis", "boundaries"}),
        ({"teacher": image_model(), "student": None}, {"training", "synthesis", "samples"}),
        ({"teacher": None, "student": None, "has_log": False}, set()),
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
    def figure(record):
        drawn = Figure()
        drawn.subplots().plot([record.results["seed"]])
        return drawn

    monkeypatch.setitem(report.FIGURES, "extra", figure)
    monkeypatch.setitem(report.FIGURES, "unsuitable", lambda record: None)
    page = written(has_log=False)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"boundaries.png", "extra.png"}
    assert "Extra" in page.text
    assert page.tags.count("img") == 2


def test_page_shows_summary_results_and_config(written, tmp_path):
    page = written(has_log=False, has_samples=False)
    for line in report.summary(made_up.results()).splitlines():
        assert all(part.strip() in page.text for part in line.split("  "))
    assert json.dumps(made_up.results(), indent=1) in page.text
    assert (tmp_path / "config.json").read_text() in page.text


@pytest.mark.parametrize("field", ["config_name", "variant", "method"])
def test_page_escapes_text(written, tmp_path, field):
    page = written(content=made_up.results(**{field: "<b>&amp;"}), has_log=False, has_samples=False)
    assert not {"b", "script"} & set(page.tags)
    assert page.text.count("<b>&amp;") >= 3  # title, heading, results
    assert "<b>" not in (tmp_path / "report.html").read_text()


def test_page_is_written_again(written, tmp_path):
    written(has_log=False)
    assert "77" in written(content=made_up.results(seed=77), has_log=False, has_samples=False).text
    assert not list(tmp_path.glob("*.tmp"))


def test_page_of_a_run_without_evaluation(written):
    content = made_up.results(**made_up.NOT_EVALUATED)
    assert written(content=content, has_log=False, has_samples=False).text.count("null") == 7
