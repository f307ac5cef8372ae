"""The model card of a student: a Markdown file beside it, in the form that model hubs read."""

import json

from cake_jax.files import write_atomically
from cake_jax.report.page import TEMPLATES
from cake_jax.report.record import Record
from cake_jax.report.tables import run_figures
from cake_jax.teachers.torch.code import has_pytorch_code


def write(record: Record) -> None:
    """Writes `student/README.md`. Does nothing if the run has no student.

    Args:
      record: The run.
    """
    if record.student is None:
        return
    config, run = json.loads((record.folder / "config.json").read_text()), run_figures(record.results)
    card = TEMPLATES.get_template("model_card.md").render(
        run=run,
        config=config,
        spec=record.student.spec,
        has_pytorch_code=has_pytorch_code(record.student),
        teacher=_teacher(config, run.teacher_params),
        measured=run.student_accuracy is not None or run.agreement is not None,
        title=":".join(filter(None, (record.results["config_name"], record.results["variant"]))),
        environment=record.results["environment"],
    )
    write_atomically(record.folder / "student" / "README.md", card.encode())


def _teacher(config: dict, num_params: int | None) -> str:
    """Where the teacher comes from, and its size."""
    black_box, teacher = config["black_box"], config["teacher"]
    name = teacher["model"]["name"]
    source = (black_box["url"] or black_box["function"] or teacher["from_run"]).replace("`", "'")
    size = f"{num_params:,} parameters" if num_params else "of unknown size"
    if source:
        return f"from `{source}`, {size}"
    weights = teacher["weights"].replace("`", "'")
    origin = f"from `{weights}`" if weights else f"trained on `{config['dataset']['name']}`"
    return f"`{name}` {origin}, {size}"
