"""What a dry run says of stages that are off or taken from elsewhere, the queries that it counts, and its estimates."""

import json
import re

import numpy as np
import pytest
import runs
from cake_errors import message_of
from runs import small_config

from cake_jax.config import resolve
from cake_jax.methods import METHODS
from cake_jax.run import dry_run, speed

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


def test_the_student_of_an_earlier_run_s_samples_has_their_number(finished):
    fields = {"synthesis.from_run": str(finished), "synthesis.num_batches": 1, "run.evaluation": False}
    assert any("3 epochs of 180 examples" in line for line in lines_of(**fields) if line.startswith("student"))
    fields["synthesis.max_step_size"] = 1e-9
    assert "no samples with a step size from 0.0 to " in message_of(lines_of, **fields)


def test_a_model_that_does_not_fit_is_refused():
    message = message_of(lines_of, **{"student.model.name": "cnn"})
    assert message.startswith("student.model: CNN does not take inputs of shape (2,): ")


def test_earlier_samples_that_are_missing_are_refused():
    assert message_of(lines_of, **{"synthesis.from_run": "elsewhere"}).startswith("synthesis.from_run: no samples in ")


def test_a_teacher_behind_an_address_is_not_trained():
    fields = {"method": "noise", "black_box.answers": "labels", "black_box.budget": 9, "black_box.url": "http://a"}
    fields["teacher.model.name"] = "cnn"  # it does not take these inputs, and is not used
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


@pytest.mark.parametrize("method", [name for name in METHODS if name != "inversion"])
def test_the_queries_of_every_method_are_counted(method):
    """`generative` queries for gradients in the first round alone."""
    settings = resolve(small_config(method=method))
    synthesis = settings.samples.synthesis
    made = [METHODS[method].queries(synthesis, "statistics", batch) for batch in range(3)]
    line = dry_run.describe(settings).splitlines()[2]
    gradient, forward = (int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:gradient|forward)", line))
    assert (gradient, forward) == (sum(one.gradient for one in made), sum(one.forward for one in made))
    assert forward >= 180
    if method == "generative":
        assert gradient == 60 * synthesis.num_steps > 0


def test_the_views_of_a_student_are_queries(finished):
    fields = {"teacher.from_run": str(finished), "synthesis.from_run": str(finished), "student.epochs": 10}
    *_, stored, _ = lines_of(**fields)
    *_, asked, _ = lines_of(**fields, **{"student.views.ask": True})
    assert "queries" not in stored
    assert "teacher queries: 1,780 forward" in asked


def test_the_gradients_of_an_adversary_are_announced_and_counted(finished, tmp_path):
    """178 inputs make one step, and the adversary learns in the first step of each of the 2 epochs."""
    fields = {"teacher.from_run": str(finished), "synthesis.from_run": str(finished), "student.epochs": 2}
    fields |= {"student.views.ask": True, "student.views.adversary": 0.5}
    *_, student, _ = lines_of(**fields)
    assert "teacher queries: 356 gradient, 356 forward" in student
    results = runs.run(small_config(**fields), tmp_path / "run", report=False)
    assert results["queries"]["student"] == {"forward": 356, "gradient": 356}


def test_the_views_that_a_function_labels_are_queries():
    box = {"black_box.answers": "labels", "black_box.function": "nowhere:answer", "black_box.budget": 2000}
    *_, asked, _ = lines_of(**box, **{"method": "noise", "student.epochs": 10, "student.views.ask": True})
    assert "teacher queries: 1,780 forward" in asked


LINEAR = {"teacher.model.name": "logistic_regression", "student.model.name": "logistic_regression"}


@pytest.fixture
def slow(monkeypatch):
    """A machine that does 10 operations in a second, so that operations make the whole time."""
    monkeypatch.setattr(speed, "flops_per_second", lambda: 10.0)


def hours(line):
    """The time that a line ends with, in hours."""
    value, unit = line.split()[-2:]
    return float(value) * {"s": 1 / 3600, "min": 1 / 60, "h": 1.0}[unit]


def test_times_are_operations_over_speed(slow):
    """Logistic regression of 2 values and 2 classes takes 10 operations: 8 in the product, 2 for the bias."""
    teacher, synthesis, student, _ = lines_of(**LINEAR)
    examples = 2 * 256  # of the 540 that are not held out, in batches of 256
    assert hours(teacher) == pytest.approx(3 * 3 * examples / 3600, abs=0.06)
    assert hours(synthesis) == pytest.approx((180 + 2 * 900) / 3600, abs=0.06)
    assert hours(student) == pytest.approx(3 * 3 * 178 / 3600, abs=0.06)
    assert " about " in synthesis


def test_the_guide_student_and_the_generator_count(slow):
    def of_ideal(**fields):
        return hours(lines_of(method="ideal", **LINEAR, **fields)[1])

    # In each of 100 more epochs after a round, the pool has 60, 120 or 180 samples.
    few, more = (of_ideal(**{"methods.ideal.student.epochs": epochs}) for epochs in (10, 110))
    assert more - few == pytest.approx(100 * 360 * 3 / 3600, abs=0.2)
    # In each of 10 more steps in a round, the guide student gives 60 gradients. The generator costs far more.
    few, more = (of_ideal(**{"methods.ideal.num_steps": steps}) for steps in (1, 11))
    assert more - few > 10 * 180 * 2 / 3600 + 1


@pytest.mark.parametrize(
    ("method", "word"),
    [("cake", "about"), ("generative", "about"), ("ideal", "at least"), ("zeroth_order", "at least")],
)
def test_the_estimate_of_a_method_that_works_with_answers_is_a_lower_bound(method, word):
    assert lines_of(method=method)[1].split("forward; ")[1].startswith(word)


def test_the_time_of_a_remote_teacher_is_not_part_of_the_estimate(slow):
    remote = {"black_box.answers": "scores", "black_box.budget": 1000, "black_box.url": "http://a"}
    own, other = (lines_of(method="noise", **LINEAR, **fields)[1] for fields in ({}, remote))
    assert own.endswith("at least 3 min")
    assert other.endswith("at least 1 s")


def test_the_network_of_an_earlier_run_is_counted_and_not_that_of_the_config(finished, slow):
    fields = {"teacher.from_run": str(finished), "run.student": False, "run.evaluation": False}
    assert lines_of(**fields) == lines_of(**fields, **{"teacher.model.name": "logistic_regression"})


def test_a_teacher_without_statistics_is_refused_for_inversion():
    assert "no batch-norm statistics" in message_of(dry_run.describe, resolve(small_config(method="inversion")))


def test_the_speed_is_measured_once(tmp_path, monkeypatch):
    """A later call reads the cache's entry for this machine. If the cache is damaged, the speed is measured again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = speed.flops_per_second()
    assert np.isfinite(measured)
    assert measured > 1e6
    (path,) = (file for file in tmp_path.rglob("*") if file.is_file())
    ((name, value),) = json.loads(path.read_text()).items()
    assert value == measured
    path.write_text(json.dumps({name: 5.0, "another machine": 7.0}))
    assert speed.flops_per_second() == 5.0
    path.write_text(json.dumps({"another machine": 7.0}))
    assert speed.flops_per_second() > 1e6
    assert json.loads(path.read_text())["another machine"] == 7.0
    path.write_text("damaged")
    assert speed.flops_per_second() > 1e6
    assert json.loads(path.read_text()).keys() == {name}
