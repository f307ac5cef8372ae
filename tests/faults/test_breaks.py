"""Each class of faults finds code that is broken on purpose."""

import harness
import pytest
from breaks import BREAKS
from faults import FAULTS

# A fault at a random moment may miss the defect. Several are tried.
_TRIES = 6


def test_each_class_has_a_break():
    assert list(BREAKS) == list(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", BREAKS)
def test_a_fault_finds_what_is_broken(fault):
    broken, kind = BREAKS[fault]
    with harness.Harness((kind,), broken.__name__) as runs:
        for number in range(_TRIES):
            record = runs.run(fault, 0, number, kind)
            if "skipped" in record:
                assert fault == "read-only folder", "every machine allows the other faults"
                pytest.skip(record["skipped"])
            if not record["passed"]:
                print(f"{fault}: {record['complaints']}")
                return
    pytest.fail(f"{_TRIES} faults of the class {fault} did not notice {broken.__name__}")
