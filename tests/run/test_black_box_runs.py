"""Runs whose teacher is a black box: the run's own teacher, a function, and a server that loses requests."""

import itertools
import json
import random
import sys
import time
import types

import jax
import numpy as np
import pytest
import runs
from cake_errors import message_of
from http_server import LOST, Memory, Server

from cake_jax import load_run
from cake_jax.config import resolve
from cake_jax.data.toy import NUM_TEST
from cake_jax.run import teacher_stage


def small_config(**fields):
    """120 samples of noise, labelled by a black box with a budget of 120 queries."""
    config = runs.small_config(**{"method": "noise", "synthesis.batch_size": 40, "student.epochs": 1})
    config.student.batch_size = 64
    config.black_box.update({"answers": "labels", "budget": 120})
    config.update_from_flattened_dict(fields)
    return config


def classify(pixels):
    return (pixels[:, 0] > pixels[:, 1]).astype(int)


@pytest.fixture
def function(monkeypatch):
    """A module `elsewhere` with the function `classify`. `num_rows` counts the rows of its calls."""
    module = types.ModuleType("elsewhere")
    module.num_rows = 0

    def counted(pixels):
        module.num_rows += len(pixels)
        return classify(pixels)

    module.classify = counted
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    return module


FUNCTION = {"black_box.function": "elsewhere:classify", "black_box.budget": 2 * NUM_TEST}


def test_the_run_s_own_teacher_is_queried_once_for_each_sample(finished, tmp_path):
    results = runs.run(small_config(**{"teacher.from_run": str(finished)}), tmp_path / "run")
    assert results["queries"]["synthesis"] == {"forward": 120, "gradient": 0}
    assert results["ledger"] == {"queries": 120}
    assert results["teacher"]["test_accuracy"] > 0.5  # the evaluation has the teacher itself
    assert results["student"]["test_agreement"] is not None
    run = load_run(tmp_path / "run")
    samples = run.samples.select()
    assert set(np.unique(samples.logits)) == {0.0, 110.0}
    np.testing.assert_array_equal(samples.logits.argmax(-1), run.teacher.predict(samples.x).argmax(-1))


def test_a_budget_is_never_passed_and_a_larger_one_goes_on(finished, tmp_path):
    """The budget and the number of tries may change between a stop and the next start. The answers may not."""
    fields = {"teacher.from_run": str(finished), "run.evaluation": False, **spent_ledger(finished, tmp_path)}
    folder = tmp_path / "run"
    message = message_of(runs.run, small_config(**fields, **{"black_box.budget": 159}), folder)
    assert "beyond the budget of 159, of which 120 are spent" in message
    assert load_run(folder).samples.count == 80
    config = small_config(**fields, **{"black_box.tries": 2, "black_box.budget": 160})
    assert runs.run(config, folder, report=False)["ledger"] == {"queries": 160}
    assert json.loads((folder / "config.json").read_text())["black_box"]["budget"] == 160
    config.black_box.answers = "scores"
    assert "differs in black_box.answers" in message_of(runs.run, config, folder)


def test_a_run_that_its_budget_cannot_pay_is_refused_before_it_spends_anything(function, tmp_path):
    message = message_of(runs.run, small_config(**{**FUNCTION, "black_box.budget": 119}), tmp_path / "run")
    assert message.startswith("black_box.budget: 119 queries are fewer than the 120 of the samples; raise it, or lower")
    assert function.num_rows == 0
    assert not (tmp_path / "run").exists()


def test_a_method_s_own_budget_is_what_the_black_box_has_left(function, tmp_path):
    """424 queries less 64 views are three for each of 120 samples. Of these, a pair's three bisections need five."""
    fields = {**FUNCTION, **VIEWS, "student.epochs": 1, "black_box.budget": 424, "run.evaluation": False}
    results = runs.run(small_config(**fields, method="zeroth_order"), tmp_path, report=False)
    assert results["queries"]["synthesis"] == {"forward": 120 + 3 * 60, "gradient": 0}
    assert json.loads((tmp_path / "config.json").read_text())["methods"]["zeroth_order"]["budget"] == 424 - 64
    assert function.num_rows <= 424


def test_a_method_keeps_its_budget_when_that_of_the_black_box_is_raised(finished, tmp_path):
    """The ledger has 80 queries of another run, so the first start stops. The second has the same samples."""
    fields = {"teacher.from_run": str(finished), "run.evaluation": False, "method": "zeroth_order"}
    fields |= {"black_box.budget": 360, **spent_ledger(finished, tmp_path, batches=2)}
    assert "beyond the budget of 360" in message_of(runs.run, small_config(**fields), tmp_path / "run")
    for budget in (600, 900):
        results = runs.run(small_config(**{**fields, "black_box.budget": budget}), tmp_path / "run", report=False)
        assert results["queries"]["synthesis"]["forward"] == 300
    assert json.loads((tmp_path / "run" / "config.json").read_text())["methods"]["zeroth_order"]["budget"] == 360


def test_views_that_leave_nothing_for_samples_are_named(function, tmp_path):
    fields = {**FUNCTION, **VIEWS, "black_box.budget": 256, "method": "zeroth_order"}
    message = message_of(runs.run, small_config(**fields), tmp_path / "run")
    assert message.startswith("black_box.budget: 256 queries are fewer than the 120 of the samples and the 256 of the")


def spent_ledger(finished, folder, batches=1):
    """The field of a ledger from which another run has spent 40 queries for each of its mini-batches."""
    field = {"black_box.ledger": str(folder / "spent.sqlite")}
    fields = {"teacher.from_run": str(finished), "seed": 1, "synthesis.num_batches": batches, "run.evaluation": False}
    runs.run(small_config(**fields, **field), folder / "spender", report=False)
    return field


# The stored samples are answered already, so views without fresh inputs would cost less.
VIEWS = {"student.views.ask": True, "student.views.fresh": ("normal",), "student.views.fresh_share": 1.0}
VIEWS |= {"student.epochs": 4, "black_box.budget": 120 + 4 * 64}


def test_views_are_charged_to_the_budget(finished, tmp_path):
    """A step of 64 of the 119 samples that are not held out makes an epoch."""
    fields = {**VIEWS, "teacher.from_run": str(finished)}
    results = runs.run(small_config(**fields), tmp_path / "run")
    assert results["queries"]["student"] == {"forward": 4 * 64, "gradient": 0}
    assert results["ledger"] == {"queries": 120 + 4 * 64}
    fields["black_box.budget"] = 120 + 4 * 64 - 1
    message = message_of(runs.run, small_config(**fields), tmp_path / "too_small")
    assert message.startswith("black_box.budget: 375 queries are fewer than the 120 of the samples and the 256 of the")
    assert not (tmp_path / "too_small").exists()


def test_a_stopped_student_pays_for_no_view_twice(finished, tmp_path):
    """The budget ends in the last epoch. The run then goes on with the saved state, and ends in the same student."""
    fields = {**VIEWS, "teacher.from_run": str(finished), "run.evaluation": False}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    runs.run(small_config(**fields), whole, report=False)
    fields |= spent_ledger(finished, tmp_path)
    assert "beyond the budget of 376" in message_of(runs.run, small_config(**fields), stopped)
    fields["black_box.budget"] += 40
    assert runs.run(small_config(**fields), stopped, report=False)["ledger"] == {"queries": 40 + 120 + 4 * 64}
    students = [load_run(folder).student.variables for folder in (whole, stopped)]
    jax.tree.map(np.testing.assert_array_equal, *students)


def test_a_function_labels_views_of_the_samples_of_an_earlier_run(function, finished, tmp_path):
    """178 of the 180 samples are not held out, and two steps of 64 make an epoch."""
    fields = {**FUNCTION, **VIEWS, "synthesis.from_run": str(finished), "black_box.budget": 4 * 128}
    results = runs.run(small_config(**fields), tmp_path / "run", report=False)
    assert function.num_rows == results["ledger"]["queries"] == 4 * 128
    fields["black_box.budget"] -= 1
    message = message_of(runs.run, small_config(**fields), tmp_path / "too_small")
    assert message.startswith("black_box.budget: 511 queries are fewer than the 512 of the student's views; raise it")


def test_the_module_of_a_function_may_be_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "model_of_mine.py").write_text("def classify(pixels):\n    return (pixels[:, 0] > 0).astype(int)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = small_config(**{"black_box.function": "model_of_mine:classify", "run.evaluation": False})
    results = runs.run(config, tmp_path / "run", report=False)
    assert results["ledger"]["queries"] == 120


def test_a_function_is_not_queried_for_the_test_set(function, tmp_path):
    results = runs.run(small_config(**FUNCTION), tmp_path / "run")
    assert results["teacher"] == {"test_accuracy": None, "num_params": None}
    assert results["student"]["test_accuracy"] is not None
    assert results["student"]["test_agreement"] is None
    assert function.num_rows == results["ledger"]["queries"] == 120


def test_a_function_is_queried_for_the_test_set_if_the_config_says_so(function, tmp_path):
    results = runs.run(small_config(**FUNCTION, **{"black_box.evaluate": True}), tmp_path / "run")
    assert function.num_rows == results["ledger"]["queries"] == 120 + NUM_TEST
    assert results["queries"]["synthesis"]["forward"] == 120
    assert 0.3 < results["teacher"]["test_accuracy"] < 1
    assert results["student"]["test_agreement"] is not None


def test_a_function_is_queried_for_the_test_set_with_the_samples_of_an_earlier_run(function, finished, tmp_path):
    fields = {"synthesis.from_run": str(finished), "black_box.evaluate": True}
    results = runs.run(small_config(**FUNCTION, **fields), tmp_path / "run", report=False)
    assert function.num_rows == results["ledger"]["queries"] == NUM_TEST
    assert 0.3 < results["teacher"]["test_accuracy"] < 1
    assert results["student"]["test_agreement"] is not None
    assert results["samples"]["count"] == 180


def test_a_function_is_not_queried_if_nothing_needs_it(function, finished, tmp_path):
    results = runs.run(small_config(**FUNCTION, **{"synthesis.from_run": str(finished)}), tmp_path, report=False)
    assert results["ledger"] is None
    assert function.num_rows == 0
    assert not (tmp_path / "ledger.sqlite").exists()


def test_runs_that_share_a_ledger_share_its_answers(function, tmp_path):
    fields = {"black_box.ledger": str(tmp_path / "shared.sqlite"), "run.evaluation": False}
    config = small_config(**FUNCTION, **fields)
    first = runs.run(config, tmp_path / "a", report=False)
    config.student.epochs = 2
    second = runs.run(config, tmp_path / "b", report=False)
    assert function.num_rows == 120
    assert first["ledger"] == second["ledger"] == {"queries": 120}


@pytest.fixture
def without_waits(monkeypatch):
    """Repeats a request without waiting before."""
    without = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr("cake_jax.black_box.black_box.time", without)


@pytest.mark.parametrize("method", ["noise", "ideal"])
def test_a_server_that_loses_requests_and_stops(method, tmp_path, without_waits):
    """The server loses a request in five, then stops with an answer on the way. The same run then goes on."""
    random_numbers, ways, memory = random.Random(3), itertools.cycle(LOST), Memory()

    def loses_some(number, memory):
        return next(ways) if random_numbers.random() < 0.2 else None

    def loses_some_then_all(number, memory):
        return "dropped when done" if number > 12 else loses_some(number, memory)

    fields = {"method": method, "black_box.max_rows": 8, "black_box.timeout": 0.5, "black_box.tries": 4}
    with Server(memory, loses_some_then_all, classify) as server:
        config = small_config(**fields, **{"black_box.url": server.url})
        assert "run again to go on" in message_of(runs.run, config, tmp_path / "run")
    before = set(memory.keys)
    with Server(memory, loses_some, classify, port=server.server_port):
        results = runs.run(config, tmp_path / "run")
    assert results["ledger"] == {"queries": 120}
    assert results["queries"]["synthesis"]["forward"] == 120
    # A key comes with the same rows always, no row comes with two keys, and each row is charged once.
    assert not memory.conflicts
    assert len(memory.rows) == sum(memory.rows.values()) == 120
    assert len(set(memory.keys) - before) == 15 - len(before) > 0
    with Server(answer=classify) as reliable:
        config.black_box.url = reliable.url
        uninterrupted = runs.run(config, tmp_path / "whole", report=False)
    assert {**results, "seconds": None} == {**uninterrupted, "seconds": None}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"black_box.function": "no_such_module:f"}, "black_box.function: no function 'no_such_module:f'"),
        ({"black_box.function": "json:no_such_name"}, "black_box.function: no function 'json:no_such_name'"),
        ({"black_box.url": "ftp://a"}, "is no address"),
        ({"black_box.url": "http://a", "black_box.authorization": "NO_SUCH"}, "environment variable NO_SUCH"),
    ],
)
def test_a_teacher_that_cannot_be_reached_is_refused_before_any_query(fields, message, tmp_path):
    assert message in message_of(runs.run, small_config(**fields), tmp_path / "run")
    assert load_run(tmp_path / "run").samples.count == 0


def test_a_black_box_is_refused_to_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    opened = teacher_stage.opened_black_box(resolve(small_config()), None, tmp_path)
    assert message_of(opened.__enter__).startswith("black_box: its ledger belongs to one process")
