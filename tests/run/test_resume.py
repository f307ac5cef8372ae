"""A run that was stopped goes on and ends in the result of an uninterrupted run."""

import csv
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
import runs
import writer_files
from cake_errors import message_of
from runs import small_config

from cake_jax.errors import CakeWarning
from cake_jax.run import run_folder, saves
from cake_jax.stores import checkpoint
from cake_jax.stores.samples import SampleStore
from cake_jax.training import trainer

STAGES = ("teacher", "synthesis", "student")
FIGURE_OF_STAGE = {
    "teacher": "loss",
    "synthesis": "target_accuracy",
    "student": "loss",
    "evaluation": "student_test_agreement",
}

# The command line with a state saved after every epoch.
RUN_THAT_SAVES_ALWAYS = """
from cake_jax.run import saves
saves.SAVE_SECONDS = 0.0
from cake_jax.cli import main
main()
"""


@pytest.fixture
def always_saving(monkeypatch):
    """Saves a state after every epoch."""
    monkeypatch.setattr(saves, "SAVE_SECONDS", 0.0)


def stop_in(stage, patch):
    """Makes a run stop in a stage: after the second epoch, or after the second mini-batch."""
    save_state, append = checkpoint.save_state, SampleStore.append

    def save_and_stop(folder, epoch, state):
        save_state(folder, epoch, state)
        if folder.name == stage and epoch == 2:
            raise KeyboardInterrupt

    def append_and_stop(store, batch, samples, **facts):
        append(store, batch, samples, **facts)
        if stage == "synthesis" and batch == 1:
            raise KeyboardInterrupt

    patch.setattr(checkpoint, "save_state", save_and_stop)
    patch.setattr(SampleStore, "append", append_and_stop)


def run_and_stop(config, folder, stage, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in(stage, patch)
        with pytest.raises(KeyboardInterrupt):
            runs.run(config, folder)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_in_a_stage_changes_nothing(finished, tmp_path, monkeypatch, always_saving, stage):
    run_and_stop(small_config(), tmp_path / "run", stage, monkeypatch)
    starts, epochs = [], trainer.epochs

    def watched(key, state, *rest, **options):
        starts.append(int(state.epoch))
        return epochs(key, state, *rest, **options)

    monkeypatch.setattr(trainer, "epochs", watched)
    runs.run(small_config(), tmp_path / "run", variant="small", report=False)
    assert starts == {"teacher": [2, 0], "synthesis": [0], "student": [2]}[stage]
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(finished)


def test_a_student_that_asks_resumes_exactly_and_counts_its_queries(finished, tmp_path, monkeypatch, always_saving):
    """Of 180 samples, 2 are held out. So an epoch is one step of 178 views."""
    views = {"ask": True, "fresh": ("normal",), "mixup": 0.5}
    config = small_config(**{f"student.views.{name}": value for name, value in views.items()})
    config.teacher.from_run = config.synthesis.from_run = str(finished)
    runs.run(config, tmp_path / "whole", report=False)
    run_and_stop(config, tmp_path / "run", "student", monkeypatch)
    runs.run(config, tmp_path / "run", report=False)
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(tmp_path / "whole")
    results = runs.results_of(tmp_path / "run")
    assert results["queries"] == {
        "synthesis": {"forward": 180, "gradient": 900},
        "student": {"forward": 3 * 178, "gradient": 0},
    }
    assert results["samples"]["teacher_queries"] == 180 + 900 + 3 * 178


def csv_rows(folder, stage):
    with open(folder / f"metrics-{stage}.csv", newline="") as file:
        return list(csv.DictReader(file))


def stop_without_a_state(config, folder, stage, monkeypatch):
    """Runs a config until the second epoch of teacher or student. No state is saved."""
    epochs = trainer.epochs

    def stopping(key, state, module, spec, x, labels, settings, **options):
        for trained, info in epochs(key, state, module, spec, x, labels, settings, **options):
            yield trained, info
            if info.epoch == 2 and (labels.logits is not None) == (stage == "student"):
                raise KeyboardInterrupt

    monkeypatch.setattr(saves, "SAVE_SECONDS", 1000.0)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "epochs", stopping)
        with pytest.raises(KeyboardInterrupt):
            runs.run(config, folder)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_resumed_run_writes_no_csv_row_twice(tmp_path, monkeypatch, stage):
    """No state is saved, so the resumed run trains the epochs before the stop again."""
    config = small_config(**{"log.csv": True})
    stop_without_a_state(config, tmp_path / "run", stage, monkeypatch)
    assert [row["step"] for row in csv_rows(tmp_path / "run", stage)] == ["1", "2"]
    runs.run(config, tmp_path / "run", report=False)
    for name, steps in {"teacher": [1, 2, 3], "synthesis": [0, 1, 2], "student": [1, 2, 3], "evaluation": [0]}.items():
        rows, logged = csv_rows(tmp_path / "run", name), runs.metrics_of(tmp_path / "run", name)
        assert [int(row["step"]) for row in rows] == [row["step"] for row in logged] == steps
        figure = FIGURE_OF_STAGE[name]
        assert [float(row[figure]) for row in rows] == [row[figure] for row in logged]


def test_a_resumed_run_repeats_no_step_in_tensorboard_and_wandb(tmp_path, monkeypatch):
    """No state is saved, so the resumed run trains the epochs before the stop again."""
    for library in ("tensorboardX", "tensorboard", "wandb"):
        pytest.importorskip(library)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config, folder = small_config(**{"log.tensorboard": True, "log.wandb": True}), tmp_path / "run"
    stop_without_a_state(config, folder, "student", monkeypatch)
    runs.run(config, folder)
    scalars, pictures = writer_files.tensorboard(folder)
    _, codes, rows = writer_files.wandb(folder)
    assert codes == [1, 0]
    for stage, figure in FIGURE_OF_STAGE.items():
        logged = {row["step"]: row[figure] for row in runs.metrics_of(folder, stage)}
        assert logged
        assert dict(scalars[f"{stage}/{figure}"]) == pytest.approx(logged)
        assert {row[f"{stage}/step"]: row[f"{stage}/{figure}"] for row in rows if f"{stage}/step" in row} == logged
        assert len(scalars[f"{stage}/{figure}"]) == sum(f"{stage}/step" in row for row in rows) == len(logged)
    names = {f"figures/{path.stem}" for path in folder.glob("figures/*.png")}
    assert names
    assert pictures == {name: [0] for name in names}
    assert {name.removesuffix("/path") for row in rows for name in row if name.endswith("/path")} == names


def test_csv_files_are_off_by_default(finished):
    assert not list(finished.glob("*.csv"))


def test_sigkill_in_every_stage_changes_nothing(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [
        "--config=configs/two_moons.py:smoke",
        "--config.teacher.epochs=25",
        "--config.student.epochs=25",
        "--config.synthesis.num_batches=60",
        "--config.synthesis.batch_size=20",
        f"--cpu_devices={jax.device_count()}",
    ]
    command = [sys.executable, "-c", RUN_THAT_SAVES_ALWAYS, *arguments, f"--workdir={killed}"]
    metrics = killed / "metrics.jsonl"
    for stage in STAGES:
        process = subprocess.Popen(command, cwd=runs.ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.exists() and metrics.read_text().count(f'"{stage}"') >= 3:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before it was killed in {stage}"
        assert not (killed / "results.json").exists()
    for folder in (whole, killed):
        assert runs.command(*arguments, f"--workdir={folder}").code == 0
    assert runs.outcome_of(killed) == runs.outcome_of(whole)


def change_a_byte(path, place=-100):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["samples/batch-000001.npz", "teacher", "samples"])
def test_what_is_damaged_is_named_and_made_anew(finished, unfinished, part):
    """The other shards are not made again."""
    files = {
        "teacher": [unfinished / "teacher" / "variables" / "state" / "manifest.ocdbt"],
        "samples": sorted((unfinished / "samples").glob("*.npz")),
    }.get(part, [unfinished / part])
    sound = {path: path.stat().st_ino for path in unfinished.glob("samples/*.npz") if path not in files}
    for path in files:
        change_a_byte(path)
    with pytest.warns(CakeWarning) as notes:
        runs.run(small_config(), unfinished, variant="small", report=False)
    places = [str(unfinished / "teacher")] if part == "teacher" else [*map(str, files)]
    assert [str(note.message) for note in notes] == [
        f"{place}: damaged, its checksum differs; it is made anew" for place in places
    ]
    assert runs.outcome_of(unfinished) == runs.outcome_of(finished)
    assert {path: path.stat().st_ino for path in sound} == sound


def test_a_damaged_state_is_named_and_the_training_starts_anew(finished, tmp_path, monkeypatch, always_saving):
    run_and_stop(small_config(), tmp_path / "run", "student", monkeypatch)
    change_a_byte(tmp_path / "run" / "student" / "training" / "000002" / "state" / "manifest.ocdbt")
    with pytest.warns(CakeWarning, match=r"student/training: damaged, its checksum differs; it is made anew"):
        runs.run(small_config(), tmp_path / "run", variant="small", report=False)
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(finished)


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(finished, tmp_path, monkeypatch):
    """The second run starts while the first writes its first mini-batch."""
    append, messages = SampleStore.append, []

    def append_and_start(store, batch, samples, **facts):
        append(store, batch, samples, **facts)
        if batch == 0:
            messages.append(message_of(runs.run, small_config(), tmp_path / "run", overwrite=True))
            messages.append(message_of(runs.run, small_config(), tmp_path / "run"))

    monkeypatch.setattr(SampleStore, "append", append_and_start)
    runs.run(small_config(), tmp_path / "run", variant="small", report=False)
    monkeypatch.undo()
    assert len(messages) == 2
    assert all("another process works on this run" in message for message in messages)
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(finished)
    runs.run(small_config(seed=1), tmp_path / "run", overwrite=True, report=False)


def test_a_run_that_ends_while_a_second_one_starts_is_not_done_again(tmp_path, monkeypatch, capsys):
    """The first run ends after the second has looked for its results, and before the second has the lock."""
    locked, folder = run_folder.locked, tmp_path / "run"

    def locked_late(*arguments):
        monkeypatch.undo()
        runs.run(small_config(), folder, report=False, quiet=True)
        return locked(*arguments)

    monkeypatch.setattr(run_folder, "locked", locked_late)
    runs.run(small_config(), folder, report=False)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{folder} holds the finished run of this config")


def test_deleted_samples_are_made_again(finished, unfinished):
    shutil.rmtree(unfinished / "samples")
    runs.run(small_config(), unfinished, variant="small", report=False)
    assert runs.outcome_of(unfinished) == runs.outcome_of(finished)
