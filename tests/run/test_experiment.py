"""A run from end to end: what it leaves in its folder, stages from earlier runs, and who reads real data."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import made_up
import numpy as np
import pytest
import runs
from cake_errors import message_of
from runs import small_config

from cake_jax import data, load_run
from cake_jax.config import resolve
from cake_jax.data import DataSettings
from cake_jax.evaluation import evaluate, starts_agreement
from cake_jax.run import evaluation_stage, experiment, results
from cake_jax.stores import checkpoint
from cake_jax.training import trainer
from cake_jax.types import CakeError, CakeWarning
from cake_jax.version import __version__


def test_a_run_leaves_results_metrics_and_a_report(finished):
    results = json.loads((finished / "results.json").read_text())
    names = [results[name] for name in ("config_name", "variant", "method", "seed")]
    assert names == ["moons", "small", "cake", 0]
    assert results["teacher"]["num_params"] == results["student"]["num_params"] == 942
    for name in ("test_accuracy", "test_agreement", "grid_agreement"):
        assert 0 < results["student"][name] <= 1
    assert results["student"]["test_kl"] > 0
    assert results["samples"] == {"count": 180, "num_steps": 5, "teacher_queries": 180 * 6}
    assert results["queries"]["synthesis"] == {"forward": 180, "gradient": 900}
    assert results["queries"]["student"] == {"forward": 0, "gradient": 0}
    assert results["ledger"] is None
    seconds = results["seconds"]
    assert seconds["total"] == pytest.approx(seconds["teacher"] + seconds["synthesis"] + seconds["student"])
    assert set(results["environment"]) == {"jax", "devices", "commit", "date", "command"}
    assert json.loads((finished / "config.json").read_text())["synthesis"]["num_steps"] == 5
    assert [row["step"] for row in runs.metrics_of(finished, "teacher")] == [1, 2, 3]
    assert [row["step"] for row in runs.metrics_of(finished, "synthesis")] == [0, 1, 2]
    assert [row["step"] for row in runs.metrics_of(finished, "student")] == [1, 2, 3]
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {f"{name}.png" for name in ("boundaries", "classes", "confusion", "training", "synthesis")}
    assert "student test accuracy" in (finished / "report.html").read_text()


def test_a_finished_run_is_not_run_again(finished, capsys):
    results = runs.run(small_config(), finished, config_name="another")
    assert results == json.loads((finished / "results.json").read_text())
    assert "nothing to do" in capsys.readouterr().out


def test_an_unfinished_run_says_that_it_goes_on(unfinished, tmp_path, capsys):
    runs.run(small_config(), unfinished, report=False)
    assert f"{unfinished} holds an unfinished run of this config; it goes on" in capsys.readouterr().out
    runs.run(small_config(), tmp_path / "new", report=False)
    assert "goes on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/python3", "/venv/bin/cake-jax", "--config=digits"], "cake-jax --config=digits"),
        (["/venv/bin/python", "scripts/run.py", "--config=a b.py"], "python scripts/run.py '--config=a b.py'"),
        (["/venv/bin/python", "-m", "cake_jax.cli"], "python -m cake_jax.cli"),
    ],
)
def test_the_command_of_a_run_can_be_repeated_elsewhere(argv, command, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", argv)
    assert results._command() == command


@pytest.mark.parametrize("has_tree", [True, False])
def test_the_commit_is_that_of_this_source_tree_alone(has_tree, tmp_path, monkeypatch):
    """The package may be installed in a folder of another project, which has commits of its own."""
    for command in ("init --quiet", "-c user.name=a -c user.email=b commit --quiet --allow-empty --message=c"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    tree = tmp_path if has_tree else tmp_path / "site-packages"
    tree.mkdir(exist_ok=True)
    monkeypatch.setattr(results, "_ROOT", tree)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert results._commit() == (head.stdout.strip() if has_tree else f"cake_jax {__version__}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student.model.name": "cnn"}, "student.model: CNN does not take inputs of shape (2,): "),
        ({"teacher.model.name": "cnn"}, "teacher.model: CNN does not take inputs of shape (2,): "),
        ({"synthesis.from_run": "elsewhere"}, "synthesis.from_run: no samples in elsewhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(fields, message, tmp_path):
    assert message_of(runs.run, small_config(**fields), tmp_path / "run").startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_trained_is_not_checked(tmp_path):
    """`sweep.py` trains a teacher with the arguments of its first point, whose student may not fit."""
    alone = {"run.synthesis": False, "run.student": False, "run.evaluation": False, "method": "ideal"}
    config = small_config(**alone, **{"student.model.name": "cnn"})
    assert runs.run(config, tmp_path / "run", report=False)["teacher"]["num_params"] == 942


def test_the_evaluation_asks_the_teacher_once(tmp_path, monkeypatch):
    """A black box would look up each further answer."""
    teacher, student, dataset = made_up.TEACHER, made_up.STUDENT, made_up.dataset()
    asked = []

    class Counted:
        spec = teacher.spec

        def predict(self, x):
            asked.append(len(x))
            return teacher.predict(x)

    monkeypatch.setattr(evaluation_stage, "kept_students", lambda rounds: {1: student, 2: student})
    figures, answers = evaluation_stage.evaluate_models(dataset, Counted(), student, tmp_path)
    assert asked == [len(dataset.test_x)]
    expected = evaluate(student, teacher, dataset.test_x, dataset.test_y)
    assert figures["student"] == expected
    assert figures["teacher"] == evaluate(teacher, None, dataset.test_x, dataset.test_y)
    assert figures["rounds"] == [{"round": number, **expected} for number in (1, 2)]
    np.testing.assert_array_equal(answers.teacher, teacher.predict(dataset.test_x))


def test_images_without_data_have_an_agreement_on_procedural_images(tmp_path):
    fields = {"teacher.epochs": 1, "student.epochs": 1, "dataset.name": "digits", "synthesis.num_batches": 1}
    runs.run(small_config(**fields), tmp_path / "data", report=False)
    without = {**fields, "teacher.from_run": str(tmp_path / "data"), "dataset.name": "none"}
    with pytest.warns(CakeWarning, match="not measured"):
        found = runs.run(small_config(**without), tmp_path / "none")
    run = load_run(tmp_path / "none")
    assert run.teacher.spec == load_run(tmp_path / "data").teacher.spec
    message = message_of(resolve, small_config(**without, **{"dataset.shape": (8, 9, 1)}))
    assert message.startswith("dataset.shape: (8, 9, 1), but the earlier run's teacher has (8, 8, 1)")
    assert found["starts_agreement"] == starts_agreement(run.student, run.teacher)
    assert found["student"]["test_agreement"] is None
    assert "On procedural images, which need no data" in (tmp_path / "none" / "report.html").read_text()


def test_results_describe_the_saved_models(finished):
    results, run = runs.results_of(finished), load_run(finished)
    dataset = data.load(DataSettings("two_moons"))
    student, teacher = (np.argmax(model(dataset.test_x), axis=-1) for model in (run.student, run.teacher))
    assert results["student"]["test_accuracy"] == pytest.approx(np.mean(student == dataset.test_y))
    assert results["teacher"]["test_accuracy"] == pytest.approx(np.mean(teacher == dataset.test_y))
    assert results["student"]["test_agreement"] == pytest.approx(np.mean(student == teacher))
    samples = run.samples.read(1)
    np.testing.assert_allclose(samples.logits, run.teacher(samples.x), atol=1e-5)


def test_samples_are_made_and_the_student_trains_while_real_data_cannot_be_read(tmp_path, monkeypatch):
    without_data = []

    def refuse(*arguments, **options):
        raise CakeError("the real data are locked")

    def locked(stage):
        def run(*arguments):
            with monkeypatch.context() as patch:
                for kind in {type(source) for source in data.SOURCES.values()}:
                    patch.setattr(kind, "load", refuse)
                with pytest.raises(CakeError, match="locked"):
                    data.load(DataSettings("two_moons"))
                without_data.append(stage.__name__)
                return stage(*arguments)

        return run

    for stage in (experiment.stored_samples, experiment.trained_student):
        monkeypatch.setattr(experiment, stage.__name__, locked(stage))
    results = runs.run(small_config(), tmp_path / "run", report=False)
    assert without_data == ["stored_samples", "trained_student"]
    assert results["student"]["test_accuracy"] is not None


def test_a_run_without_evaluation_reads_no_data(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("the data set was read"))
    config = small_config(**{"run.evaluation": False, "teacher.from_run": str(finished)})
    results = runs.run(config, tmp_path / "run")
    assert results["teacher"]["test_accuracy"] is None
    assert results["student"]["test_accuracy"] is None
    assert results["seconds"]["teacher"] == 0
    assert results["student"]["grid_agreement"] > 0.5
    assert (tmp_path / "run" / "report.html").exists()


def test_stages_are_taken_from_an_earlier_run(finished, tmp_path):
    fields = {"run.teacher": False, "run.synthesis": False}
    fields |= {"teacher.from_run": str(finished), "synthesis.from_run": str(finished)}
    second = runs.run(small_config(**fields), tmp_path / "second")
    first = runs.results_of(finished)
    assert second["student"] == first["student"]
    assert second["samples"]["count"] == first["samples"]["count"]
    assert not (tmp_path / "second" / "samples").exists()
    fields["synthesis.max_step_size"] = 1e-2
    third = runs.run(small_config(**fields), tmp_path / "third", report=False)
    assert third["student"] != first["student"]


def test_a_student_is_trained_further(finished, tmp_path):
    """With a tiny learning rate it stays the student that it was. Without `from_run` it is another one."""
    fields = {"run.teacher": False, "run.synthesis": False, "student.epochs": 1, "student.learning_rate": 1e-9}
    fields |= {"teacher.from_run": str(finished), "synthesis.from_run": str(finished)}
    anew = runs.run(small_config(**fields), tmp_path / "anew", report=False)
    fields["student.from_run"] = str(finished)
    further = runs.run(small_config(**fields), tmp_path / "further", report=False)
    first = runs.results_of(finished)["student"]
    assert further["student"]["test_kl"] == pytest.approx(first["test_kl"], rel=1e-4)
    assert anew["student"]["test_kl"] > 1.1 * first["test_kl"]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"student.model.options": {"width": 3}}, "holds another architecture; set student.model as in that run"),
        ({"dataset.std": (0.5,)}, "was trained for other data"),
    ],
)
def test_another_architecture_or_other_data_cannot_be_trained_further(fields, end, finished):
    message = message_of(resolve, small_config(**{"student.from_run": str(finished), **fields}))
    assert message.startswith("student.from_run: ")
    assert message.endswith(end)


def test_the_description_of_an_earlier_student_is_checked(finished, tmp_path):
    shutil.copytree(finished / "student", tmp_path / "student")
    path = tmp_path / "student" / "model.json"
    about = json.loads(path.read_text())
    about["spec"]["channels"] = 3
    path.write_text(json.dumps(about))
    message = message_of(resolve, small_config(**{"student.from_run": str(tmp_path)}))
    assert message.startswith(f"{path}: ")


def test_a_student_that_reads_its_samples_from_the_disk_is_the_same(finished, unfinished, monkeypatch):
    config = small_config(**{"student.memory_gb": 1e-6})
    document = json.loads((unfinished / "config.json").read_text())
    document["student"]["memory_gb"] = 1e-6
    (unfinished / "config.json").write_text(json.dumps(document))
    on_disk, epochs = [], trainer.epochs

    def watched(key, state, module, spec, x, labels, settings, **options):
        on_disk.append(isinstance(x, np.memmap) and isinstance(labels.logits, np.memmap))
        return epochs(key, state, module, spec, x, labels, settings, **options)

    monkeypatch.setattr(trainer, "epochs", watched)
    runs.run(config, unfinished, variant="small", report=False)
    assert on_disk == [True]
    assert runs.outcome_of(unfinished) == runs.outcome_of(finished)


def samples_of(folder):
    return load_run(folder).samples.select().x


def test_lake_is_cake_with_temperature_one(finished, tmp_path):
    fields = {"run.student": False, "run.evaluation": False, "teacher.from_run": str(finished)}
    temperature = "synthesis.langevin_temperature"
    for name, more in {
        "lake": {"method": "lake"},
        "cake": {temperature: 1.0},
        "cold": {temperature: 0.0},
    }.items():
        runs.run(small_config(**fields, **more), tmp_path / name, report=False)
    np.testing.assert_array_equal(samples_of(tmp_path / "lake"), samples_of(tmp_path / "cake"))
    np.testing.assert_array_equal(samples_of(tmp_path / "cold"), samples_of(finished))
    assert not np.array_equal(samples_of(tmp_path / "lake"), samples_of(tmp_path / "cold"))


def test_samples_student_and_evaluation_see_the_logits_at_the_teachers_temperature(finished, tmp_path):
    fields = {"teacher.from_run": str(finished), "teacher.temperature": 4.0}
    config = small_config(**fields)
    results = runs.run(config, tmp_path / "run", report=False)
    assert results["teacher"] == runs.results_of(finished)["teacher"]
    run, samples = load_run(tmp_path / "run"), samples_of(tmp_path / "run")
    logits = load_run(finished).teacher.predict(samples) / 4
    np.testing.assert_allclose(run.samples.select().logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run.teacher.predict(samples), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run.student.predict(samples).std(), logits.std(), rtol=0.5)
    dataset = data.load(resolve(config).data)
    figures = evaluate(run.student, run.teacher, dataset.test_x, dataset.test_y)
    assert results["student"]["test_kl"] == pytest.approx(figures["kl"], rel=1e-4)


def test_samples_and_views_have_the_same_temperature(finished, tmp_path):
    """A teacher of 4 times the logits and the temperature 4 gives the run of the teacher itself."""
    shutil.copytree(finished, tmp_path / "large")
    path = tmp_path / "large" / "teacher"
    teacher, about = checkpoint.load_model(path), checkpoint.model_info(path)["model"]
    last = max(teacher.variables["params"])
    params = dict(teacher.variables["params"])
    params[last] = jax.tree.map(lambda leaf: 4 * leaf, params[last])
    shutil.rmtree(path)
    large = dataclasses.replace(teacher, variables={**teacher.variables, "params": params})
    checkpoint.save_model(path, large, about["name"], about["options"])
    views = {"student.views.ask": True, "student.distance": "l2"}
    own = runs.run(small_config(**views, **{"teacher.from_run": str(finished)}), tmp_path / "own", report=False)
    fields = {"teacher.from_run": str(path.parent), "teacher.temperature": 4.0}
    divided = runs.run(small_config(**views, **fields), tmp_path / "divided", report=False)
    assert divided["student"]["test_kl"] == pytest.approx(own["student"]["test_kl"], rel=1e-2)
    np.testing.assert_allclose(samples_of(tmp_path / "divided"), samples_of(tmp_path / "own"), atol=1e-3)


def test_samples_of_a_run_at_another_temperature_are_refused(finished):
    fields = {"synthesis.from_run": str(finished), "teacher.from_run": str(finished), "teacher.temperature": 2.0}
    message = message_of(resolve, small_config(**fields))
    assert message.startswith("teacher.temperature: 2.0, but the samples of ")


def test_a_run_writes_the_model_card_beside_its_student(finished):
    student = runs.results_of(finished)["student"]
    text = (finished / "student" / "README.md").read_text()
    assert f"| accuracy | {100 * student['test_accuracy']:.1f} % |" in text
    assert f"{student['num_params']:,} parameters" in text


def test_a_run_without_real_data_or_student_is_reported(finished, tmp_path):
    fields = {"run.student": False, "run.evaluation": False, "teacher.from_run": str(finished)}
    results = runs.run(small_config(**fields), tmp_path / "run")
    assert results["student"]["num_params"] is None
    assert "<h2>How the samples were made</h2>" in (tmp_path / "run" / "report.html").read_text()


def test_noise_needs_no_gradient(finished, tmp_path):
    fields = {"method": "noise", "run.student": False, "run.evaluation": False, "teacher.from_run": str(finished)}
    results = runs.run(small_config(**fields), tmp_path / "run", report=False)
    assert results["queries"]["synthesis"] == {"forward": 180, "gradient": 0}
    assert abs(samples_of(tmp_path / "run").std() - 1) < 0.15


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_teacher(tmp_path):
    config = small_config(**{"synthesis.step_size": 1e30, "teacher.epochs": 1})
    with pytest.raises(CakeError, match="synthesis: mini-batch 0 is not finite"):
        runs.run(config, tmp_path / "run")
    assert checkpoint.has_model(tmp_path / "run" / "teacher")
    assert not (tmp_path / "run" / "results.json").exists()
