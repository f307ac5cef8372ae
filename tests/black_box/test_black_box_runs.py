"""Runs with a teacher that can only be queried: in disguise, behind a function, and behind a server that misbehaves."""

import json
import random
import sys
import types

import numpy as np
import pytest
from http_server import LOST, Memory, Server

from cake_jax import experiment, methods
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


def test_a_larger_budget_goes_on(tmp_path):
    """What decides how a teacher is reached, not what it answers, may change between a stop and the next start."""
    with pytest.raises(CakeError, match="beyond the budget"):
        experiment.run(small_config(**{"black_box.budget": 90}), tmp_path / "run", config_name="moons")
    results = experiment.run(
        small_config(**{"black_box.budget": 120, "black_box.tries": 2}), tmp_path / "run", config_name="moons"
    )
    assert results["ledger"] == {"queries": 120}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["black_box"]["budget"] == 120
    with pytest.raises(CakeError, match=r"differs in black_box\.answers"):
        experiment.run(small_config(**{"black_box.answers": "scores"}), tmp_path / "run", config_name="moons")


def test_a_second_run_pays_for_nothing_twice(tmp_path, far):
    """The same samples once more, in another folder with the same ledger."""
    ledger = tmp_path / "shared.sqlite"
    config = small_config(**{"black_box.function": "far_away:classify", "black_box.ledger": str(ledger)})
    first = experiment.run(config, tmp_path / "a", config_name="moons")
    config.student.epochs = 3
    second = experiment.run(config, tmp_path / "b", config_name="moons")
    assert sum(map(len, far.asked)) == 120
    assert first["ledger"] == second["ledger"] == {"queries": 120}


METHODS = [name for name in ("noise", "ideal") if name in methods.METHODS]


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_fails_hangs_and_dies(tmp_path, method):
    """One request in five is lost; then the server dies with an answer on the way. The same command goes on."""
    chance, memory = random.Random(3), Memory()

    def classify(pixels):
        return (pixels[:, 0] > pixels[:, 1]).astype(int)

    def later(number, memory):
        return LOST[number % len(LOST)] if chance.random() < 0.2 else None

    def trouble(number, memory):
        return "dropped when done" if number > 12 else later(number, memory)

    fields = {"method": method, "black_box.max_rows": 8, "black_box.timeout": 0.5, "black_box.tries": 4}
    fields |= {"black_box.budget": 120, "student.epochs": 1}
    with Server(memory, trouble, classify) as server:
        config = small_config(**fields, **{"black_box.url": server.url})
        with pytest.raises(CakeError, match="run again to go on"):
            experiment.run(config, tmp_path / "run", config_name="moons")
    before = set(memory.keys)
    with Server(memory, later, classify, port=server.server_port):
        results = experiment.run(config, tmp_path / "run", config_name="moons")
    assert results["ledger"] == {"queries": 120}
    assert results["queries"]["synthesis"]["forward"] == 120
    # The server's own log: each key with the same rows always, no row under two keys, the budget to the last row.
    assert not memory.conflicts
    assert len(memory.rows) == sum(memory.rows.values()) == 120
    assert len(set(memory.keys) - before) == 15 - len(before) > 0
    with Server(answer=classify) as whole:
        config.black_box.url = whole.url
        uninterrupted = experiment.run(config, tmp_path / "whole", config_name="moons")
    assert {**results, "seconds": None} == {**uninterrupted, "seconds": None}


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
