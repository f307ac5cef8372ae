"""The report of one run, and the tables and figures of several runs."""

from cake_jax.report import model_card, page
from cake_jax.report.drawing import Drawing
from cake_jax.report.figures import FIGURES
from cake_jax.report.figures.boundaries import decision_boundaries
from cake_jax.report.record import Record
from cake_jax.report.tables import summary


def write(record: Record) -> None:
    """Writes `report.html` with its figures, and the model card of the student."""
    page.write(record)
    model_card.write(record)


__all__ = ["FIGURES", "Drawing", "Record", "decision_boundaries", "summary", "write"]
