"""The model card of a student."""

import made_up
import pytest
from made_up import image_model

from cake_jax import models
from cake_jax.config import default
from cake_jax.report import model_card
from cake_jax.teachers import LinenApply, Teacher
from cake_jax.types import DataSpec

ENVIRONMENT = {"commit": "abc", "jax": "1.2", "date": "2026-01-02", "devices": ["cpu"], "command": "run"}


@pytest.fixture
def card(tmp_path):
    """A function that writes the card of a made-up run, and returns its text."""
    (tmp_path / "student").mkdir()

    def write(fields=None, content=None, **run):
        config = default()
        config.update_from_flattened_dict(fields or {})
        (tmp_path / "config.json").write_text(config.to_json())
        content = made_up.results(environment=ENVIRONMENT) | (content or {})
        model_card.write(made_up.record(tmp_path, has_log=False, has_samples=False, content=content, **run))
        return (tmp_path / "student" / "README.md").read_text()

    return write


def test_the_card_says_what_the_student_is_and_how_good(card):
    text = card({"student.model.name": "lenet5", "dataset.name": "mnist"})
    for part in (
        "| architecture | `lenet5` with the options `{}`, 942 parameters |",
        "| teacher | `mlp` trained on `mnist`, 12,345 parameters |",
        "| method | `cake`, 2,000 samples, 2,000 forward passes and 500,000 gradients of the teacher |",
        "| config | `default`, seed 3 |",
        "| made with | abc, JAX 1.2, 2026-01-02 |",
        "| accuracy | 87.5 % |",
        "| accuracy of the teacher | 91.2 % |",
        "| agreement with the teacher | 93.8 % |",
        "saw no real data",
    ):
        assert part in text
    assert text.startswith("---\nlicense: other\n")
    assert "None" not in text


def test_the_card_names_the_exports_that_there_are(card):
    spec = DataSpec((4, 4, 1), 3)
    mlp = Teacher({"params": {}}, LinenApply(models.create("mlp", spec)), spec)
    assert "student.py` writes it as PyTorch code" in card(student=mlp)
    assert "PyTorch code" not in card()


def test_the_card_describes_inputs_and_classes(card):
    spec = {"mean": (0.5,), "std": (0.25,), "low": 0.0, "high": 1.0, "class_names": ("cat & dog", "dog", "emu")}
    text = card(student=image_model(**spec))
    assert "- Shape of an input: `[4, 4, 1]` (height, width, channels)" in text
    assert "mean `[0.5]` and std `[0.25]`" in text
    assert "- Range of a pixel: 0.0 to 1.0" in text
    assert "- Classes: cat & dog, dog, emu" in text
    assert "pipeline_tag: image-classification" in text
    assert "x [N, 4, 4, 1]" in text


def test_unknown_values_are_not_measured(card):
    student = made_up.NOT_EVALUATED["student"] | {"num_params": 942}
    fields = {"black_box.url": "https://teacher/answers"}
    text = card(fields, {**made_up.NOT_EVALUATED, "student": student, "method": "real"})
    assert text.count("| not measured |") == 3
    assert "The student was not measured on real data." in text
    assert "| teacher | from `https://teacher/answers`, of unknown size |" in text
    assert "It learned from real training examples." in text


def test_the_teacher_of_a_file_is_named_with_its_architecture(card):
    fields = {"teacher.weights": "mine.safetensors", "teacher.model.name": "resnet18"}
    assert "| teacher | `resnet18` from `mine.safetensors`, 12,345 parameters |" in card(fields)


def test_a_run_without_student_has_no_card(card, tmp_path):
    with pytest.raises(FileNotFoundError):
        card(student=None)


def test_names_that_others_chose_are_shown_as_they_are(card):
    names = ("<script>alert(1)</script>", "![x](https://example.invalid/x.png)", "`a` $\\frac$")
    fields = {"student.model.name": "mlp", "teacher.from_run": "`<b>`"}
    text = card(fields, student=image_model(class_names=names))
    assert (
        "- Classes: \\<script>alert(1)\\</script>, !\\[x](https://example.invalid/x.png), \\`a\\` $\\\\frac$\n" in text
    )
    assert "| teacher | from `'<b>'`, 12,345 parameters |" in text
