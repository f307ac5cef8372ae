"""One fault of each class to a real run. `python tests/faults --faults=200` does many."""

import harness
import pytest
from faults import FAULTS


@pytest.fixture(scope="module")
def runs():
    """The harness, with the two kinds of runs that take the least time."""
    with harness.Harness(("cake", "black box")) as made:
        yield made


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_survives(runs, fault):
    record = runs.run(fault, 0, list(FAULTS).index(fault))
    if "skipped" in record:
        assert fault == "read-only folder", "every machine allows the other faults"
        pytest.skip(record["skipped"])
    assert not record["complaints"], record
    assert record["equal"]


def test_the_moments_and_the_order_follow_from_the_seed():
    assert harness.plan(13) == [*FAULTS, *list(FAULTS)[:2]]


def test_the_numbers_of_a_log_are_its_sums():
    record = {
        "passed": True,
        "equal": True,
        "samples_lost": 0,
        "answers_lost": 1,
        "answers_paid_again": 2,
        "seconds": 1.5,
    }
    summed = harness.summary([record, {**record, "passed": False, "samples_lost": 3}, {"skipped": "no room"}])
    assert (summed["faults"], summed["skipped"], summed["passed"], summed["equal"]) == (2, 1, 1, 2)
    assert (summed["samples_lost"], summed["answers_lost"], summed["answers_paid_again"]) == (3, 2, 4)
    assert summed["seconds"] == 3.0
