"""A run end to end: what it leaves, resuming, stages from earlier runs, and what it must not touch."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cake_jax import CakeError, checkpoint, data, experiment, load, train
from cake_jax.config import default

KILLED = """
import sys
from cake_jax import experiment
experiment._SAVE_SECONDS = 0.0
from cake_jax.cli.main import main
main(["run", *sys.argv[1:]])
"""


@pytest.fixture
def config():
    config = default()
    config.dataset.name = "two_moons"
    config.dataset.max_train_examples = 600
    config.teacher.epochs = 3
    config.student.epochs = 3
    config.synthesis.num_groups = 2
    config.synthesis.num_batches = 3
    config.synthesis.batch_size = 60
    config.synthesis.num_steps = 5
    return config


def comparable(workdir):
    """All that a run must reproduce bitwise: results, models, samples and the metrics, but for times."""
    results = json.loads((workdir / "results.json").read_text())
    for name in ("seconds", "environment"):
        results.pop(name)
    run = load(workdir)
    x = np.linspace(-2, 2, 40, dtype=np.float32).reshape(-1, 2)
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return (
        results,
        np.asarray(run.teacher(x)).tolist(),
        np.asarray(run.student(x)).tolist(),
        [entry["sha256"] for entry in run.samples.entries.values()],
        sorted(json.dumps({**row, "seconds": 0}) for row in metrics),
    )


def test_a_run_leaves_what_the_contract_says(config, tmp_path, capsys):
    results = experiment.run(config, tmp_path / "run", config_name="moons", variant="small")
    folder = tmp_path / "run"
    assert json.loads((folder / "results.json").read_text()) == results
    assert (results["config_name"], results["variant"], results["method"], results["seed"]) == (
        "moons",
        "small",
        "cake",
        0,
    )
    assert results["teacher"]["num_params"] == results["student"]["num_params"] == 942
    for name in ("test_accuracy", "test_agreement", "grid_agreement"):
        assert 0 < results["student"][name] <= 1
    assert results["student"]["test_kl"] > 0
    assert results["samples"] == {"count": 180, "num_steps": 5, "teacher_queries": 180 * 6}
    assert results["queries"]["synthesis"] == {"forward": 180, "gradient": 900}
    assert results["queries"]["student"] == {"forward": 0, "gradient": 0}
    assert results["seconds"]["total"] == pytest.approx(
        sum(results["seconds"][s] for s in ("teacher", "synthesis", "student"))
    )
    assert set(results["environment"]) == {"jax", "devices", "commit"}
    assert json.loads((folder / "config.json").read_text())["synthesis"]["num_steps"] == 5
    stages = [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {stage: stages.count(stage) for stage in set(stages)} == {"teacher": 3, "synthesis": 3, "student": 3}
    assert {path.name for path in (folder / "figures").iterdir()} == {"boundaries.png", "training.png", "synthesis.png"}
    assert "student test accuracy" in capsys.readouterr().out

    again = experiment.run(config, folder, config_name="moons", variant="small")
    assert again == results
    assert "nothing to do" in capsys.readouterr().out


def test_results_are_those_of_the_saved_models(config, tmp_path):
    results = experiment.run(config, tmp_path / "run", config_name="moons")
    run = load(tmp_path / "run")
    dataset = data.load("two_moons")
    student, teacher = (np.argmax(model(dataset.test_x), axis=-1) for model in (run.student, run.teacher))
    assert results["student"]["test_accuracy"] == pytest.approx(np.mean(student == dataset.test_y))
    assert results["teacher"]["test_accuracy"] == pytest.approx(np.mean(teacher == dataset.test_y))
    assert results["student"]["test_agreement"] == pytest.approx(np.mean(student == teacher))
    np.testing.assert_allclose(run.samples.read(1).logits, run.teacher(run.samples.read(1).x), atol=1e-5)


@pytest.mark.parametrize("stage", ["teacher", "synthesis", "student"])
def test_a_stop_in_a_stage_changes_nothing(config, tmp_path, monkeypatch, stage):
    experiment.run(config, tmp_path / "whole", config_name="moons")
    monkeypatch.setattr(experiment, "_SAVE_SECONDS", 0.0)
    save_state, append = checkpoint.save_state, experiment.SampleStore.append

    def stop_after_the_second_epoch(folder, epoch, state):
        save_state(folder, epoch, state)
        if folder.name == stage and epoch == 2:
            raise KeyboardInterrupt

    def stop_after_the_second_mini_batch(store, batch, samples, **facts):
        append(store, batch, samples, **facts)
        if stage == "synthesis" and batch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_state", stop_after_the_second_epoch)
        patch.setattr(experiment.SampleStore, "append", stop_after_the_second_mini_batch)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config, tmp_path / "stopped", config_name="moons")
    starts = []
    monkeypatch.setattr(
        experiment.train,
        "epochs",
        lambda key, start, *rest, _e=experiment.train.epochs: starts.append(int(start.epoch)) or _e(key, start, *rest),
    )
    experiment.run(config, tmp_path / "stopped", config_name="moons")
    assert starts == {"teacher": [2, 0], "synthesis": [0], "student": [2]}[stage], "goes on, does not start anew"
    assert comparable(tmp_path / "stopped") == comparable(tmp_path / "whole")


def test_sigkill_in_every_stage_ends_in_the_same_result(tmp_path):
    arguments = [
        f"--config={os.path.join(os.path.dirname(__file__), '..', '..', 'configs', 'two_moons.py')}:smoke",
        "--config.teacher.epochs=25",
        "--config.student.epochs=25",
        "--config.synthesis.num_batches=60",
        "--config.synthesis.batch_size=20",
        "--cpu_devices=2",
    ]

    def start(folder):
        command = [sys.executable, "-c", KILLED, *arguments, f"--workdir={folder}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(timeout=120) == 0
    for stage in ("teacher", "synthesis", "student"):
        process = start(killed)
        metrics = killed / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.exists() and metrics.read_text().count(f'"{stage}"') >= 3:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before it was killed in {stage}"
        assert not (killed / "results.json").exists()
    process = start(killed)
    assert process.wait(timeout=120) == 0
    assert comparable(killed) == comparable(whole)


def test_the_student_trains_without_the_real_data(config, tmp_path, monkeypatch):
    """From the first synthetic sample to the trained student, the data set cannot be read at all."""
    opened, student_stage, synthesis_stage = [], experiment._student_stage, experiment._synthesis_stage
    load_data = data.load

    def unreadable(*args, **kwargs):
        raise CakeError("the real data are locked away")

    def locked(stage):
        def run(*args):
            monkeypatch.setattr(data, "load", unreadable)
            for source in data._SOURCES:
                monkeypatch.setattr(source, "load", unreadable)
            with pytest.raises(CakeError, match="locked away"):
                data.load("two_moons")
            try:
                return stage(*args)
            finally:
                monkeypatch.undo()
                opened.append(stage.__name__)

        return run

    monkeypatch.setattr(experiment, "_synthesis_stage", locked(synthesis_stage))
    experiment.run(config, tmp_path / "a", config_name="moons")
    monkeypatch.setattr(experiment, "_student_stage", locked(student_stage))
    results = experiment.run(config, tmp_path / "b", config_name="moons")
    assert opened == ["_synthesis_stage", "_student_stage"]
    assert results["student"]["test_accuracy"] is not None
    assert load_data is data.load


def test_a_run_without_evaluation_never_reads_data(config, tmp_path, monkeypatch):
    experiment.run(config, tmp_path / "first", config_name="moons")
    monkeypatch.setattr(data, "load", lambda *a, **k: pytest.fail("the data set was read"))
    config.run.evaluation = False
    config.teacher.from_run = str(tmp_path / "first")
    results = experiment.run(config, tmp_path / "second", config_name="moons")
    assert results["student"]["test_accuracy"] is None
    assert results["seconds"]["teacher"] == 0
    assert results["student"]["grid_agreement"] > 0.5


def test_stages_are_taken_from_an_earlier_run(config, tmp_path):
    first = experiment.run(config, tmp_path / "first", config_name="moons")
    config.run.teacher = config.run.synthesis = False
    config.teacher.from_run = config.synthesis.from_run = str(tmp_path / "first")
    second = experiment.run(config, tmp_path / "second", config_name="moons")
    assert second["student"] == first["student"]
    assert second["samples"]["count"] == first["samples"]["count"]
    config.synthesis.max_step_size = 1e-2
    third = experiment.run(config, tmp_path / "third", config_name="moons")
    assert third["student"] != first["student"]


def test_a_student_that_reads_its_samples_from_the_disk_is_the_same(config, tmp_path, monkeypatch):
    experiment.run(config, tmp_path / "memory", config_name="moons")
    config.student.memory_gb = 1e-6
    seen, epochs = [], train.epochs

    def looked_at(key, state, module, spec, x, labels, settings):
        seen.append(isinstance(x, np.memmap) and isinstance(labels, np.memmap))
        return epochs(key, state, module, spec, x, labels, settings)

    monkeypatch.setattr(train, "epochs", looked_at)
    experiment.run(config, tmp_path / "disk", config_name="moons")
    assert seen == [False, True]
    assert comparable(tmp_path / "disk") == comparable(tmp_path / "memory")


def test_lake_is_cake_with_temperature_one(config, tmp_path):
    config.run.student = config.run.evaluation = False
    config.method = "lake"
    experiment.run(config, tmp_path / "lake", config_name="moons")
    config.method = "cake"
    config.synthesis.langevin_temperature = 1.0
    experiment.run(config, tmp_path / "cake", config_name="moons")
    config.synthesis.langevin_temperature = 0.0
    experiment.run(config, tmp_path / "cold", config_name="moons")
    lake, cake, cold = (load(tmp_path / name).samples.select().x for name in ("lake", "cake", "cold"))
    np.testing.assert_array_equal(lake, cake)
    assert not np.array_equal(lake, cold)


def test_noise_asks_for_no_gradient(config, tmp_path):
    config.method = "noise"
    results = experiment.run(config, tmp_path, config_name="moons")
    assert results["queries"]["synthesis"] == {"forward": 180, "gradient": 0}
    assert abs(load(tmp_path).samples.select().x.std() - 1) < 0.15


def test_another_config_is_refused_by_its_first_field(config, tmp_path):
    experiment.run(config, tmp_path / "run", config_name="moons")
    config.synthesis.num_steps = 6
    with pytest.raises(CakeError, match=r"differs in synthesis\.num_steps"):
        experiment.run(config, tmp_path / "run", config_name="moons")
    results = experiment.run(config, tmp_path / "run", config_name="moons", overwrite=True)
    assert results["samples"]["num_steps"] == 6


def test_a_missing_data_set_leaves_no_claim_on_the_folder(config, tmp_path):
    config.dataset.name = "mnist"
    config.dataset.data_dir = str(tmp_path / "nowhere")
    config.synthesis.num_groups = 10
    with pytest.raises(CakeError, match=r"dataset\.data_dir"):
        experiment.run(config, tmp_path / "run", config_name="moons")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_somebody_else_is_not_touched(config, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CakeError, match="not empty"):
        experiment.run(config, tmp_path, config_name="moons", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_damaged_shard_stops_the_run_and_is_made_anew_once_deleted(config, tmp_path):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    experiment.run(config, whole, config_name="moons")
    config.run.student = config.run.evaluation = True
    experiment.run(config, damaged, config_name="moons")
    for name in ("results.json", "student/model.json"):
        (damaged / name).unlink()
    shard = damaged / "samples" / "batch-000001.npz"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CakeError, match=r"batch-000001\.npz: damaged"):
        experiment.run(config, damaged, config_name="moons")
    shard.unlink()
    experiment.run(config, damaged, config_name="moons")
    assert comparable(damaged) == comparable(whole)


def test_nan_leaves_what_was_finished(config, tmp_path):
    config.synthesis.step_size = 1e30
    with pytest.raises(CakeError, match=r"synthesis: mini-batch 0 is not finite"):
        experiment.run(config, tmp_path, config_name="moons")
    assert checkpoint.has_model(tmp_path / "teacher")
    assert not (tmp_path / "results.json").exists()
