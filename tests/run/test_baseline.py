"""The baseline of a run: a student that learns in the same way from noise, at the same cost."""

import json
import shutil

import numpy as np
import pytest
import runs
from cake_errors import message_of
from runs import small_config

from cake_jax import load_run
from cake_jax.config import resolve
from cake_jax.run import dry_run

ASKING = {"run.baseline": True, "student.views.ask": True, "student.batch_size": 60, "student.validation_fraction": 0.0}


def test_a_student_that_asks_learns_for_as_many_epochs_as_the_evaluations_pay():
    settings = resolve(small_config(**ASKING))
    # The run: 180 labels, 180 x 5 gradients of three evaluations each, and 3 epochs of 180 views. Noise: 180 labels.
    evaluations = 180 + 3 * 900 + 3 * 180
    noise = settings.baseline
    assert noise.student.training.epochs == (evaluations - 180) // 180 == 18
    assert noise.method == "noise"
    assert noise.samples.synthesis.num_samples == 180
    assert noise.document["student"]["epochs"] == 18
    assert noise.document["method"] == "noise"
    assert noise.baseline is None
    for field in ("model", "loss"):
        assert getattr(noise.student, field) == getattr(settings.student, field)


def test_gradients_of_the_students_training_are_paid_too():
    settings = resolve(small_config(**ASKING, **{"student.views.adversary": 0.5, "student.views.adversary_every": 2}))
    # An epoch has 3 steps. The generator learns in 2 of them, from 60 gradients each.
    evaluations = 180 + 3 * 900 + 3 * (180 + 3 * 120)
    assert settings.baseline.student.training.epochs == (evaluations - 180) // 180
    assert settings.baseline.student.views.adversary == 0


def test_new_inputs_of_the_baseline_are_noise():
    fields = {**ASKING, "dataset.name": "digits", "synthesis.num_groups": 10, "student.views.fresh": ("strokes",)}
    assert resolve(small_config(**fields)).baseline.student.views.fresh == ("normal",)


def test_a_student_of_stored_labels_learns_for_as_many_epochs():
    noise = resolve(small_config(**{"run.baseline": True})).baseline
    assert noise.student.training.epochs == 3
    assert not noise.student.views.ask


@pytest.fixture(scope="module")
def with_baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline") / "run"
    runs.run(small_config(**ASKING), folder)
    return folder


def test_both_students_cost_the_same_and_share_the_teacher(with_baseline):
    results = json.loads((with_baseline / "results.json").read_text())
    costs = []
    for queries in (results["queries"], results["baseline"]["queries"]):
        costs.append(sum(stage["forward"] + 3 * stage["gradient"] for stage in queries.values()))
    assert costs[0] == 180 + 3 * 900 + 3 * 180
    assert 0 <= costs[0] - costs[1] < 180
    run, noise = load_run(with_baseline), load_run(with_baseline / "baseline")
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.testing.assert_array_equal(run.teacher(x), noise.teacher(x))
    assert not np.allclose(run.student(x), noise.student(x))
    assert noise.results["student"]["test_accuracy"] == results["baseline"]["test_accuracy"]
    assert noise.results["method"] == "noise"
    assert noise.samples.select().x.std() == pytest.approx(1, abs=0.2)


def test_the_report_sets_the_student_beside_that_of_noise(with_baseline):
    page, results = (
        (with_baseline / "report.html").read_text(),
        json.loads((with_baseline / "results.json").read_text()),
    )
    noise = results["baseline"]
    assert "student of noise is right" in page
    assert f"{100 * noise['test_accuracy']:.1f} %" in page
    cost = sum(stage["forward"] + 3 * stage["gradient"] for stage in noise["queries"].values())
    assert f"cost {cost:,} evaluations of the teacher, and the student 3,420" in page


def test_a_run_without_a_baseline_says_nothing_of_it(finished):
    assert json.loads((finished / "results.json").read_text())["baseline"] is None
    assert not (finished / "baseline").exists()
    assert "student of noise" not in (finished / "report.html").read_text()


def test_a_run_that_stopped_in_its_baseline_goes_on_to_the_same_end(with_baseline, tmp_path):

    stopped = tmp_path / "run"
    shutil.copytree(with_baseline, stopped)
    runs.drop_results(stopped)
    shutil.rmtree(stopped / "baseline")
    runs.run(small_config(**ASKING), stopped)
    assert runs.outcome_of(stopped) == runs.outcome_of(with_baseline)
    assert runs.results_of(stopped / "baseline") == runs.results_of(with_baseline / "baseline")


def test_a_run_that_was_moved_goes_on_in_its_baseline(with_baseline, tmp_path):
    moved = shutil.copytree(with_baseline, tmp_path / "elsewhere")
    runs.drop_results(moved)
    runs.drop_results(moved / "baseline", "student")
    runs.run(small_config(**ASKING), moved)
    assert runs.results_of(moved) == runs.results_of(with_baseline)


def test_the_baseline_makes_what_the_run_takes_from_others(with_baseline):
    others = {"run.synthesis": False, "synthesis.from_run": str(with_baseline), "log.wandb": True}
    noise = resolve(small_config(**ASKING, **others, **{"run.teacher": False, "teacher.from_run": str(with_baseline)}))
    assert noise.baseline.stages.synthesis
    assert noise.baseline.samples.from_run == ""
    assert noise.metrics_writers == ("wandb",)
    assert noise.baseline.metrics_writers == ()


def test_samples_of_an_earlier_run_are_paid_as_they_cost(with_baseline, tmp_path):
    fields = {**ASKING, "synthesis.from_run": str(with_baseline), "synthesis.num_batches": 1}
    noise = resolve(small_config(**fields)).baseline
    assert noise.samples.synthesis.num_samples == 180
    assert noise.samples.from_run == ""
    assert noise.student.training.epochs == 18


def test_the_dry_run_has_a_line_for_the_baseline():
    lines = dry_run.describe(resolve(small_config(**ASKING))).splitlines()
    (line,) = [line for line in lines if line.startswith("baseline")]
    assert "18 epochs of 180 examples; teacher queries: 3,240 forward" in line


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"run.student": False}, "run.student is off"),
        ({"run.evaluation": False}, "measures nothing"),
        (
            {"black_box.answers": "labels", "black_box.budget": 10_000, "method": "noise"},
            "query the black box as often",
        ),
    ],
)
def test_a_baseline_that_shows_nothing_is_refused(fields, words):
    message = message_of(resolve, small_config(**{"run.baseline": True, **fields}))
    assert message.startswith("run.baseline: ")
    assert words in message
