"""Training with differential privacy: what one image may change, and how much noise a bound needs."""

import json
import statistics
import sys

import jax
import made_up
import numpy as np
import pytest
import runs

from cake_jax import data

private = runs.module_of("private_teachers")


def weights(dataset, noise=0.0):
    teacher = private.trained(dataset, noise, 0)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(teacher.variables)])


@pytest.fixture
def dataset(monkeypatch):
    monkeypatch.setattr(private, "_STEPS", 1)
    whole = data.load(data.DataSettings("digits"))
    return whole._replace(train_x=whole.train_x[:20], train_y=whole.train_y[:20])


def test_one_image_changes_a_step_by_at_most_twice_its_bound(dataset):
    x = dataset.train_x.copy()
    x[0] *= 1000.0
    change = np.linalg.norm(weights(dataset._replace(train_x=x)) - weights(dataset))
    bound = private._LEARNING_RATE * private._CLIP / len(x)
    assert 0.1 * bound < change <= 2.001 * bound


def test_the_noise_has_the_size_that_the_bound_needs(dataset):
    noise = weights(dataset, 3.0) - weights(dataset)
    expected = 3.0 * private._LEARNING_RATE * private._CLIP / len(dataset.train_x)
    assert abs(noise.std() / expected - 1) < 0.02


def test_a_smaller_epsilon_needs_more_noise(monkeypatch):
    pytest.importorskip("dp_accounting")
    monkeypatch.setattr(private, "_STEPS", 1)
    loose, strict = private.noise_multiplier(4.0), private.noise_multiplier(0.9)
    assert private.noise_multiplier(float("inf")) == 0.0 < loose < strict
    # The noise of one Gaussian mechanism is at most that of Dwork and Roth (2014), theorem A.1, for epsilon below 1.
    assert strict < np.sqrt(2 * np.log(1.25 / private._DELTA)) / 0.9


def test_a_failed_run_does_not_hide_the_others(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(private, "trained", lambda dataset, noise, seed: None)
    monkeypatch.setattr(private.checkpoint, "save_model", lambda *arguments: None)
    monkeypatch.setattr(
        private.many_runs, "run_all", lambda jobs: ["error: this run failed", made_up.results(environment={})]
    )
    arguments = ["--epsilons=inf", "--seeds=0,1", f"--workdir={tmp_path}", f"--out={tmp_path / 'out.json'}"]
    monkeypatch.setattr(sys, "argv", ["private_teachers.py", *arguments])
    with pytest.raises(SystemExit, match="this run failed"):
        private.main()
    assert capsys.readouterr().out.splitlines()[-1].startswith("| inf |")
    assert len(json.loads((tmp_path / "out.json").read_text())["runs"]) == 1


def test_the_table_has_means_and_deviations():
    runs_of = [
        {
            "epsilon": "1",
            "teacher": {"test_accuracy": share},
            "student": {"test_accuracy": 0.5, "test_agreement": 0.25},
        }
        for share in (0.8, 0.9)
    ]
    row = private.table(runs_of).splitlines()[-1]
    assert row == f"| 1 | 85.0 ± {statistics.stdev([80.0, 90.0]):.1f} | 50.0 ± 0.0 | 25.0 ± 0.0 |"
