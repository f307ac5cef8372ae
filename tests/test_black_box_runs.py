"""Runs with a teacher that can only be queried: in disguise, behind a function, and behind a server that misbehaves."""

import sys
import types

import numpy as np
import pytest

from cake_jax import experiment
from cake_jax.config import default, resolve
from cake_jax.types import CakeError


def small_config(**fields):
    config = default()
    config.dataset.name = "two_moons"
    config.teacher.epochs = config.student.epochs = 2
    config.teacher.batch_size = config.student.batch_size = 64
    config.method = "noise"
    config.synthesis.num_batches, config.synthesis.batch_size, config.synthesis.num_groups = 3, 40, 2
    config.black_box.update({"answers": "labels", "budget": 120})
    config.update_from_flattened_dict(fields)
    return config


def test_a_teacher_in_disguise_is_asked_once_for_each_sample(tmp_path):
    results = experiment.run(small_config(), tmp_path, config_name="moons")
    assert results["queries"]["synthesis"] == {"forward": 120, "gradient": 0}
    assert results["ledger"] == {"queries": 120}
    assert results["teacher"]["test_accuracy"] > 0.5  # the disguise comes off for the evaluation
    assert results["student"]["test_agreement"] is not None
    run = experiment.load(tmp_path)
    logits = run.samples.select().logits
    assert set(np.unique(logits)) == {0.0, 110.0}
    expected = np.asarray(run.teacher(run.samples.select().x)).argmax(-1)
    np.testing.assert_array_equal(logits.argmax(-1), expected)


def test_a_budget_is_never_passed(tmp_path):
    config = small_config(**{"black_box.budget": 119})
    with pytest.raises(CakeError, match="beyond the budget of 119, of which 80 are spent"):
        experiment.run(config, tmp_path, config_name="moons")
    assert experiment.load(tmp_path).samples.count == 80


@pytest.fixture
def far(monkeypatch):
    """A module with a classifier of pixels, which keeps what it is asked."""
    module = types.ModuleType("far_away")
    module.asked = []

    def classify(pixels):
        module.asked.append(pixels)
        return (pixels[:, 0] > pixels[:, 1]).astype(int)

    module.classify = classify
    monkeypatch.setitem(sys.modules, "far_away", module)
    return module


def test_a_function_is_not_asked_for_the_test_set_unless_wanted(tmp_path, far):
    config = small_config(**{"black_box.function": "far_away:classify", "black_box.budget": 6000})
    results = experiment.run(config, tmp_path / "plain", config_name="moons")
    assert results["teacher"] == {"test_accuracy": None, "num_params": None}
    assert results["student"]["test_accuracy"] is not None
    assert results["student"]["test_agreement"] is None
    assert sum(map(len, far.asked)) == 120 == results["ledger"]["queries"]
    config.black_box.evaluate = True
    results = experiment.run(config, tmp_path / "evaluated", config_name="moons")
    num_test = sum(map(len, far.asked)) - 240
    assert results["ledger"]["queries"] == 120 + num_test
    assert results["queries"]["synthesis"]["forward"] == 120  # evaluation is counted apart
    assert results["student"]["test_agreement"] is not None


def test_a_second_run_pays_for_nothing_twice(tmp_path, far):
    """The same samples once more, in another folder with the same ledger."""
    ledger = tmp_path / "shared.sqlite"
    config = small_config(**{"black_box.function": "far_away:classify", "black_box.ledger": str(ledger)})
    first = experiment.run(config, tmp_path / "a", config_name="moons")
    config.student.epochs = 3
    second = experiment.run(config, tmp_path / "b", config_name="moons")
    assert sum(map(len, far.asked)) == 120
    assert first["ledger"] == second["ledger"] == {"queries": 120}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": "cake"},
            "method: 'cake' needs the teacher's gradients, and black_box.answers are labels; take",
        ),
        ({"method": "inversion"}, "method: 'inversion' needs the teacher's statistics"),
        ({"black_box.answers": "nods"}, "black_box.answers: 'nods' is not one of labels, scores, logits"),
        ({"black_box.answers": "", "black_box.url": "http://a"}, "black_box.answers: say what"),
        ({"black_box.budget": 0}, "black_box.budget: give the number"),
        ({"black_box.url": "http://a", "black_box.function": "a:b"}, "black_box.url: a teacher is behind"),
        ({"black_box.tries": 0}, "tries: 0 must be above 0"),
    ],
)
def test_what_cannot_work_is_refused(fields, message):
    with pytest.raises(CakeError, match=message):
        resolve(small_config(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"black_box.function": "no_such_module:f"}, "black_box.function: no function 'no_such_module:f'"),
        ({"black_box.url": "ftp://a"}, "is no address that begins with"),
        ({"black_box.url": "http://a", "black_box.authorization": "NO_SUCH"}, "no environment variable NO_SUCH"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_asked(fields, message, tmp_path):
    with pytest.raises(CakeError, match=message):
        experiment.run(small_config(**fields), tmp_path, config_name="moons")
