"""The report of a run: one HTML page that embeds its figures and needs no network."""

import base64
import html
import json
from pathlib import Path
from typing import Any

from cake_jax.files import write_atomically
from cake_jax.report.figures import FIGURES
from cake_jax.report.record import Record
from cake_jax.report.tables import summary_rows


def write(record: Record) -> None:
    """Draws all `FIGURES` into the folder `figures` of the run, and writes `report.html`.

    Args:
      record: The run.
    """
    folder = record.folder / "figures"
    folder.mkdir(exist_ok=True)
    drawn = []
    for name, draw in FIGURES.items():
        figure = draw(record)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=120)
            drawn.append(name)
    write_atomically(record.folder / "report.html", _html(record.folder, record.results, drawn).encode())


def _html(workdir: Path, results: dict[str, Any], figures: list[str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in summary_rows(results)
    )
    images = ""
    for name in figures:
        content = base64.b64encode((workdir / "figures" / f"{name}.png").read_bytes()).decode()
        images += f'<h2>{name.capitalize()}</h2><img alt="{name}" src="data:image/png;base64,{content}">'
    title = html.escape(" ".join(filter(None, (results["config_name"], results["variant"], results["method"]))))
    config = html.escape((workdir / "config.json").read_text())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "img{max-width:100%}th{text-align:left;font-weight:normal;padding-right:2rem;color:#666}"
        "pre{background:#f5f5f5;padding:1rem;overflow:auto}</style>"
        f"<h1>{title}</h1><table>{rows}</table>{images}"
        f"<details><summary>Results</summary><pre>{html.escape(json.dumps(results, indent=1))}</pre></details>"
        f"<details><summary>Config</summary><pre>{config}</pre></details></html>\n"
    )
