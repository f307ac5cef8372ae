"""The tables of the pages on robustness and privacy are those of their raw results."""

import json

import pytest
import runs

RESULTS, DOCS = runs.ROOT / "results", runs.ROOT / "docs"


@pytest.mark.parametrize("name", ["robustness_digits", "robustness_mnist"])
def test_robustness(name):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    for table in runs.module_of("robustness").tables(content["seeds"], content["epsilons"]):
        assert table in (DOCS / "robustness.md").read_text()


def test_privacy():
    content = json.loads((RESULTS / "privacy_digits.json").read_text())
    for table in runs.module_of("privacy").tables(content["models"]):
        assert table in (DOCS / "privacy.md").read_text()


def test_differential_privacy():
    content = json.loads((RESULTS / "private_digits.json").read_text())
    assert runs.module_of("private_teachers").table(content["runs"]) in (DOCS / "privacy.md").read_text()
