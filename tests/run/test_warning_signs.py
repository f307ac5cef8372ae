"""Signs that a run goes wrong: which runs have them, and where they are shown."""

import html
import json

import pytest
import runs

from cake_jax.report import summary
from cake_jax.run import warning_signs
from cake_jax.stores.metrics import MetricsLog


def log_of(folder, stage, rows):
    log = MetricsLog(folder / "metrics.jsonl")
    for step, row in enumerate(rows):
        log.write(stage, step, **row)
    return log


@pytest.mark.parametrize(
    ("num_classes", "limit"),
    [(2, 0.6), (5, 0.3), (10, 0.2), (1000, 0.002)],
)
def test_near_chance_is_twice_chance_and_never_0_1_more(num_classes, limit):
    assert warning_signs.near_chance(num_classes) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ""),
        ([{"loss": 1.0}], ""),
        ([{"class_balance": 0.26, "confidence": 0.21}], ""),
        ([{"class_balance": 0.2, "confidence": 0.9}, {"class_balance": 0.4, "confidence": 0.9}], ""),
        ([{"class_balance": 0.1, "confidence": 0.9}, {"class_balance": 0.3, "confidence": 0.9}], "the same class"),
        ([{"class_balance": 1.0, "confidence": 0.19}], "its highest probability is 19% on average"),
    ],
)
def test_signs_of_samples_are_means_over_the_mini_batches(tmp_path, rows, expected):
    signs = warning_signs.of_samples(log_of(tmp_path, "synthesis", rows), 10)
    assert len(signs) == bool(expected)
    assert expected in "".join(signs)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([], ""),
        ([0.3, 0.9, 0.81], ""),
        ([0.3, 0.9, 0.79], "fell from 90% to 79%; lower student.learning_rate"),
        ([0.1, 0.21], ""),
        ([0.1, 0.19], "learned only 19% of its training samples"),
    ],
)
def test_signs_of_a_student_are_a_fall_and_an_end_near_chance(tmp_path, accuracies, expected):
    log = log_of(tmp_path, "student", [{"accuracy": accuracy} for accuracy in accuracies])
    signs = warning_signs.of_student(log, 10)
    assert len(signs) == bool(expected)
    assert expected in "".join(signs)


@pytest.mark.parametrize(
    ("teacher", "agreement", "expected"),
    [
        (None, None, ""),
        (0.9, 0.8, ""),
        (0.19, 0.1, "the teacher is right on 19% of the test set, where chance is 10%"),
        (0.9, 0.19, "the student agrees with the teacher on 19% of the test set, where chance is 10%"),
        (None, 0.19, "the student agrees"),
        (0.005, None, "the teacher is right on 0.5% of the test set"),
    ],
)
def test_a_bad_teacher_is_named_before_its_student(teacher, agreement, expected):
    signs = warning_signs.of_results(teacher, agreement, 10)
    assert len(signs) == bool(expected)
    assert expected in "".join(signs)


def test_a_learning_rate_that_ruins_the_student_is_said_in_every_place(finished, tmp_path, capsys):
    """SGD at a rate of 1,000 ends near chance or falls; its samples are those of a good run."""
    fields = {"synthesis.from_run": str(finished), "teacher.from_run": str(finished), "student.epochs": 5}
    results = runs.run(runs.small_config(**fields, **{"student.learning_rate": 1e3}), tmp_path)
    assert len(results["warnings"]) >= 1
    assert "student.learning_rate" in results["warnings"][0]
    shown = capsys.readouterr()
    assert f"warning: {results['warnings'][0]}" in shown.err
    assert results["warnings"][0] in shown.out
    assert results["warnings"][0] in html.unescape((tmp_path / "report.html").read_text())
    assert json.loads((tmp_path / "results.json").read_text())["warnings"] == results["warnings"]


def test_a_good_run_has_no_sign(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["warnings"] == []
    assert "warning" not in summary(results)
