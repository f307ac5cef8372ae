"""Runs of every method, on points and on images, and their resumption between rounds."""

import contextlib

import jax
import numpy as np
import pytest
import runs
from cake_errors import message_of
from ml_collections import ConfigDict

from cake_jax import data, load_run
from cake_jax.config import resolve
from cake_jax.data import DataSettings
from cake_jax.methods import METHODS
from cake_jax.run import saves, synthesis_stage
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore

# `inversion` needs a teacher with batch norm.
NAMES = [name for name in METHODS if name != "inversion"]
GUIDED = [name for name, method in METHODS.items() if method.guide]
GENERATORS = [name for name, method in METHODS.items() if hasattr(method.settings(), "latent_size")]


def small_config(method, dataset="two_moons", **fields):
    """A config of a method: 4 rounds of 40 samples, 3 steps each."""
    config = runs.small_config(**{"method": method, "dataset.name": dataset})
    config.synthesis.num_batches, config.synthesis.batch_size, config.synthesis.num_steps = 4, 40, 3
    own = config.methods[method]
    if method in GENERATORS:
        own.num_steps, own.latent_size, own.features = 3, 8, (8, 8, 8)
    if method in GUIDED:
        own.student.batch_size = 20
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of a run that trained a teacher of digits."""
    folder = tmp_path_factory.mktemp("digits")
    fields = {"run.synthesis": False, "run.student": False, "run.evaluation": False}
    runs.run(small_config("noise", "digits", **fields), folder, report=False)
    return folder


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """Folders of uninterrupted runs on the two moons, by method. Each run is made when it is needed first."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name], terminal = tmp_path_factory.mktemp(name), runs.Terminal()
            with contextlib.redirect_stderr(terminal):
                runs.run(small_config(name, **{"teacher.from_run": str(finished)}), folders[name])
            folders[name].with_suffix(".err").write_text("\n".join(terminal.drawn()))
        return folders[name]

    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_method_runs_on_points(name, whole):
    folder = whole(name)
    results, run = runs.results_of(folder), load_run(folder)
    samples = run.samples.select()
    assert results["method"] == name
    assert results["student"]["test_accuracy"] > 0
    assert results["samples"]["count"] == samples.num_samples == 160
    np.testing.assert_allclose(samples.logits, run.teacher.predict(samples.x), atol=1e-4)
    if name in GENERATORS:
        assert (np.abs(samples.x) <= 3).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_progress_of_a_method_fits_80_columns(name, whole):
    drawn = whole(name).with_suffix(".err").read_text().splitlines()
    shown = "student accuracy" if name in GUIDED else "target accuracy"
    assert any(line.startswith(f"synthesis: 4 of 4 mini-batches, {shown} ") for line in drawn)
    assert max(map(len, drawn)) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_guide_students_are_kept_and_evaluated(name, whole):
    folder = whole(name)
    rounds, figure = runs.results_of(folder)["rounds"], folder / "figures" / "rounds.png"
    if name not in GUIDED:
        assert rounds == []
        assert not figure.exists()
        return
    dataset, last = data.load(DataSettings("two_moons")), synthesis_stage.kept_students(folder / "rounds")[4]
    accuracy = (last.predict(dataset.test_x).argmax(-1) == dataset.test_y).mean()
    assert [one["round"] for one in rounds] == [1, 2, 3, 4]
    assert rounds[-1]["test_accuracy"] == pytest.approx(accuracy)
    assert figure.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_method_makes_images(name, digits, tmp_path):
    fields = {"teacher.from_run": str(digits), "synthesis.num_batches": 2, "run.student": False}
    results = runs.run(small_config(name, "digits", **fields, **{"run.evaluation": False}), tmp_path, report=False)
    run = load_run(tmp_path)
    samples = run.samples.select()
    assert results["samples"]["count"] == samples.num_samples == 80
    np.testing.assert_allclose(samples.logits, run.teacher.predict(samples.x), atol=1e-4)
    if name in GENERATORS:
        low, high = run.teacher.spec.bounds
        assert ((samples.x >= low) & (samples.x <= high)).all()


@pytest.mark.parametrize("dataset", ["two_moons", "digits"])
def test_inversion_runs_with_a_teacher_that_has_batch_norm(dataset, tmp_path):
    fields = {"teacher.epochs": 1, "run.student": False, "run.evaluation": False}
    config = small_config("inversion", dataset, **fields)
    config.teacher.model.options = ConfigDict({"batch_norm": True})
    results = runs.run(config, tmp_path, report=dataset == "digits")
    assert results["samples"]["count"] == 160
    assert results["queries"]["synthesis"] == {"forward": 160, "gradient": 480}


@pytest.mark.parametrize(
    ("name", "save_seconds", "lost", "rounds_made"),
    [
        ("ideal", -1.0, None, [3]),
        ("dfme", -1.0, None, [3]),
        ("generative", -1.0, None, [3]),
        ("ideal", 100.0, None, [0, 1, 2, 3]),
        ("ideal", -1.0, "batch-000001.npz", [0, 1, 2, 3]),
    ],
    ids=["ideal", "dfme", "generative", "no state saved", "a shard lost"],
)
def test_a_stop_between_rounds_changes_nothing(
    name, save_seconds, lost, rounds_made, whole, finished, tmp_path, monkeypatch
):
    config = small_config(name, **{"teacher.from_run": str(finished)})
    expected = runs.outcome_of(whole(name))
    monkeypatch.setattr(saves, "SAVE_SECONDS", save_seconds)
    method, made = METHODS[name], []

    def stop_in_round_3(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return method.make_round(*arguments)

    def recorded(*arguments):
        made.append(arguments[-1])
        return method.make_round(*arguments)

    monkeypatch.setitem(METHODS, name, method._replace(make_round=stop_in_round_3))
    with pytest.raises(KeyboardInterrupt):
        runs.run(config, tmp_path)
    assert load_run(tmp_path).samples.count == 120
    if lost:
        (tmp_path / "samples" / lost).unlink()
    monkeypatch.setitem(METHODS, name, method._replace(make_round=recorded))
    runs.run(config, tmp_path, report=False)
    assert made == rounds_made
    assert runs.outcome_of(tmp_path) == expected
    assert not (tmp_path / "rounds" / "training").exists()


def test_a_sequential_method_is_refused_to_several_processes(finished, tmp_path, monkeypatch):
    settings, teacher = resolve(small_config("generative")), load_run(finished).teacher
    store, log = SampleStore(tmp_path / "samples"), MetricsLog(tmp_path / "metrics.jsonl")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    arguments = (jax.random.key(0), settings, teacher, store, tmp_path / "rounds", log)
    assert message_of(synthesis_stage.make_samples, *arguments).startswith("method: its rounds depend on each other")
