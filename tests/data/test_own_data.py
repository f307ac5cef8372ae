"""Runs on a user's own data: what a dry run counts, and a run that goes on after its data are gone."""

import json
import shutil

import numpy as np
import pytest
from data_files import make_arrays, make_folder

from cake_jax import data
from cake_jax.config import default
from cake_jax.data import DataSettings
from cake_jax.run import dry_run, experiment
from cake_jax.stores import checkpoint
from cake_jax.types import CakeError


@pytest.fixture
def config():
    config = default()
    config.teacher.epochs = config.student.epochs = 2
    config.teacher.batch_size = config.student.batch_size = 10
    config.teacher.augment = ("flip", "cutout")
    config.synthesis.num_groups = 3
    config.synthesis.num_batches = 2
    config.synthesis.batch_size = 30
    config.synthesis.num_steps = 3
    return config


def test_a_dry_run_counts_own_data(config, tmp_path):
    np.savez(tmp_path / "own.npz", **make_arrays())
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "own.npz")
    config.run.synthesis = config.run.student = config.run.evaluation = False
    assert "2 epochs of 30 examples" in dry_run.describe(config)


def test_a_run_on_own_data_goes_on_after_they_have_gone(config, tmp_path):
    own = tmp_path / "own"
    config.dataset.name, config.dataset.data_dir = "folder", str(own)
    make_folder(own)
    spec = data.spec_of(DataSettings("folder", str(own)))
    whole = experiment.run(config, tmp_path / "whole", config_name="own")
    assert checkpoint.load_model(tmp_path / "whole" / "teacher").spec == spec
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["teacher"]["augment"] == ["flip", "cutout"]

    # A second run makes its teacher, then loses the data and everything that was remembered of them.
    config.run.evaluation = False
    experiment.run(config, tmp_path / "second", config_name="own")
    for path in ("results.json", "student/model.json"):
        (tmp_path / "second" / path).unlink()
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "cache")
    second = experiment.run(config, tmp_path / "second", config_name="own")
    assert second["samples"] == whole["samples"]
    assert checkpoint.load_model(tmp_path / "second" / "student").spec == spec

    # A third takes the teacher of the first.
    config.teacher.from_run = str(tmp_path / "whole")
    experiment.run(config, tmp_path / "third", config_name="own")
    config.run.evaluation = True
    with pytest.raises(CakeError, match=r"dataset\.data_dir"):
        experiment.run(config, tmp_path / "fourth", config_name="own")
