"""Runs on a user's own data: what a dry run counts, and a run that goes on after its data are gone."""

import json
import shutil

import numpy as np
import pytest
import runs
from cake_errors import message_of
from data_files import make_arrays, make_folder

from cake_jax import data
from cake_jax.config import default, resolve
from cake_jax.data import DataSettings
from cake_jax.run import dry_run
from cake_jax.stores import checkpoint
from cake_jax.types import DataSpec


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config():
    config = default()
    config.teacher.epochs = config.student.epochs = 1
    config.teacher.batch_size = config.student.batch_size = 10
    config.teacher.augment = ("flip", "cutout")
    config.synthesis.num_groups = 3
    config.synthesis.num_batches = 2
    config.synthesis.batch_size = 30
    config.synthesis.num_steps = 3
    return config


def test_a_dry_run_counts_the_examples_of_a_file(config, cache, tmp_path):
    np.savez(tmp_path / "own.npz", **make_arrays())
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "own.npz")
    config.run.synthesis = config.run.student = config.run.evaluation = False
    assert "1 epochs of 30 examples" in dry_run.describe(resolve(config))


def test_real_images_are_missed_before_a_run_begins(config, finished, tmp_path):
    """The teacher is there, and the file has test data alone."""
    arrays = {name: array for name, array in make_arrays().items() if name.endswith("test")}
    np.savez(tmp_path / "own.npz", **arrays)
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "own.npz")
    config.teacher.from_run, config.method = str(finished), "real"
    config.run.evaluation, config.teacher.augment, config.synthesis.num_groups = False, (), 2
    for check in (lambda: dry_run.describe(resolve(config)), lambda: runs.run(config, tmp_path / "run")):
        message = message_of(check)
        assert "own.npz has test data alone, so the method 'real' has no images; choose another method" in message
    assert not (tmp_path / "run").exists()


def test_the_order_of_at_most_20_classes_of_a_folder_is_a_line(tmp_path):
    folder, names = DataSettings("folder", str(tmp_path)), tuple(f"c{number}" for number in range(21))
    line = "classes    0 c0, 1 c1, 2 c2"
    assert data.class_order(folder, DataSpec((2,), 3, class_names=names[:3])) == line
    assert data.class_order(folder, DataSpec((2,), 20, class_names=names[:20])).endswith(", 19 c19")
    assert data.class_order(folder, DataSpec((2,), 21, class_names=names)).endswith(", 19 c19, ...")
    assert data.class_order(DataSettings("cifar10"), DataSpec((2,), 3, class_names=names[:3])) == ""


def test_a_run_on_own_data_goes_on_after_they_are_gone(config, cache, tmp_path, capsys):
    own = tmp_path / "own"
    config.dataset.name, config.dataset.data_dir = "folder", str(own)
    make_folder(own)
    spec = data.spec_of(DataSettings("folder", str(own)))
    whole = runs.run(config, tmp_path / "whole")
    assert "classes    0 ant, 1 bee, 2 cat\n" in capsys.readouterr().out
    assert "classes    0 ant, 1 bee, 2 cat\n" in dry_run.describe(resolve(config))
    assert checkpoint.load_model(tmp_path / "whole" / "teacher").spec == spec
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["teacher"]["augment"] == ["flip", "cutout"]

    # A second run makes its teacher. Then its data and the cache are deleted.
    config.run.evaluation = False
    runs.run(config, tmp_path / "second", report=False)
    runs.drop_results(tmp_path / "second", "student")
    shutil.rmtree(own)
    shutil.rmtree(cache)
    second = runs.run(config, tmp_path / "second", report=False)
    assert second["samples"] == whole["samples"]
    assert checkpoint.load_model(tmp_path / "second" / "student").spec == spec

    # A third run takes the teacher of the first. It fails only if it has to be evaluated on the data.
    config.teacher.from_run = str(tmp_path / "whole")
    runs.run(config, tmp_path / "third", report=False)
    config.run.evaluation = True
    assert message_of(runs.run, config, tmp_path / "fourth").startswith("dataset.data_dir: ")
