"""What a dry run says of stages that are off or taken from elsewhere, and the queries that it counts."""

import pytest
import runs
from runs import small_config

from cake_jax.config import resolve
from cake_jax.run import dry_run

OFF = {"run.synthesis": False, "run.student": False, "run.evaluation": False}


def lines_of(**fields):
    """The lines after the first, which names the devices and the method."""
    first, *lines = dry_run.describe(resolve(small_config(**fields))).splitlines()
    assert fields.get("method", "cake") in first
    return lines


def test_models_and_samples_of_an_earlier_run_are_named(finished):
    fields = {"teacher.from_run": str(finished), "synthesis.from_run": str(finished), "run.student": False}
    teacher, samples, evaluation = lines_of(**fields)
    assert teacher.split() == ["teacher", "from", str(finished)]
    assert samples.split() == ["synthesis", "samples", "from", str(finished)]
    assert evaluation.startswith("evaluation")


def test_a_teacher_behind_an_address_is_not_trained():
    fields = {"method": "noise", "black_box.answers": "labels", "black_box.budget": 9, "black_box.url": "http://a"}
    teacher, evaluation = lines_of(**fields, **OFF)
    assert teacher.startswith("teacher ")
    assert "epochs" not in teacher
    assert evaluation == "no evaluation"


@pytest.mark.parametrize(("method", "gradient", "forward"), [("noise", 0, 180), ("cake", 900, 180)])
def test_the_queries_of_all_rounds_are_counted(finished, method, gradient, forward):
    fields = {"method": method, "teacher.from_run": str(finished), "run.student": False, "run.evaluation": False}
    _, synthesis, _ = lines_of(**fields)
    assert f"180 samples (3 x 60), {5 if method == 'cake' else 0} steps" in synthesis
    assert f"{gradient} gradient, {forward} forward" in synthesis
    if method == "cake":
        assert runs.results_of(finished)["queries"]["synthesis"] == {"forward": forward, "gradient": gradient}
