"""The report of a run: one HTML page that embeds its figures and needs no network."""

import base64
import json
import re
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib
import numpy as np

from cake_jax.evaluation import Answers
from cake_jax.files import write_atomically
from cake_jax.report.drawing import Drawing
from cake_jax.report.figures import FIGURES
from cake_jax.report.figures.style import ON_ANY_BACKGROUND
from cake_jax.report.record import Record
from cake_jax.report.tables import run_figures, summary_rows

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cake_jax.report"),
    autoescape=jinja2.select_autoescape(),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


class Picture(NamedTuple):
    """A drawing as the page shows it.

    Attributes:
      name: Name in `FIGURES`.
      drawing: The drawing.
      content: The PNG file in base64.
    """

    name: str
    drawing: Drawing
    content: str


class ClassRow(NamedTuple):
    """The test examples of one true class.

    Attributes:
      name: Name of the class.
      examples: Number of test examples.
      teacher: Share that the teacher classifies correctly. None if the teacher was not evaluated.
      student: Share that the student classifies correctly.
      agreement: Share to which both give the same class. None if the teacher was not evaluated.
    """

    name: str
    examples: int
    teacher: float | None
    student: float
    agreement: float | None


def write(record: Record) -> None:
    """Draws all `FIGURES` into the folder `figures` of the run, and writes `report.html`.

    Args:
      record: The run.
    """
    folder = record.folder / "figures"
    folder.mkdir(exist_ok=True)
    pictures = []
    with matplotlib.rc_context(ON_ANY_BACKGROUND):
        for name, draw in FIGURES.items():
            drawing = draw(record)
            if drawing is not None:
                pictures.append(_picture(name, drawing, folder / f"{name}.png"))
    write_atomically(record.folder / "report.html", _html(record, pictures).encode())


def _picture(name: str, drawing: Drawing, path: Path) -> Picture:
    drawing.figure.savefig(path, dpi=120)
    return Picture(name, drawing, in_base64(path.read_bytes()))


def in_base64(content: bytes) -> str:
    """The content of a file as a page embeds it."""
    return base64.b64encode(content).decode()


def _html(record: Record, pictures: list[Picture]) -> str:
    results, config = record.results, (record.folder / "config.json").read_text()
    return TEMPLATES.get_template("page.html").render(
        title=" ".join(filter(None, (results["config_name"], results["variant"], results["method"]))),
        run=run_figures(results),
        config=json.loads(config),
        num_classes=record.spec.num_classes if record.spec else None,
        warnings=results.get("warnings", ()),
        environment=results.get("environment", {}),
        pictures=pictures,
        classes=class_rows(record.answers, record.class_names(record.answers.num_classes)) if record.answers else [],
        summary=summary_rows(results),
        results_text=json.dumps(results, indent=1),
        config_text=config,
    )


def class_rows(answers: Answers, names: tuple[str, ...]) -> list[ClassRow]:
    """The results on the test set for each true class that has examples.

    Args:
      answers: What teacher and student answer on the test set.
      names: Names of the K classes.
    """
    if answers.classes is None:
        return []

    rows = []
    for number, name in enumerate(names):
        own = answers.classes == number
        if own.any():
            student = answers.student[own].argmax(-1)
            teacher = None if answers.teacher is None else answers.teacher[own].argmax(-1)
            of_teacher = None if teacher is None else float(np.mean(teacher == number))
            agreement = None if teacher is None else float(np.mean(teacher == student))
            rows.append(ClassRow(name, len(student), of_teacher, float(np.mean(student == number)), agreement))
    return rows


def _percent(value: float | None) -> str:
    """A share as a text in percent, or `not measured`."""
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _unformatted(text: str) -> str:
    """A text that Markdown shows as it is: a name may hold HTML or the address of a picture."""
    return re.sub(r"([\\<\[`])", r"\\\1", text)


TEMPLATES.filters["percent"] = _percent
TEMPLATES.filters["unformatted"] = _unformatted
