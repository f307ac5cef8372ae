"""The tables of the pages on robustness and privacy are those of their raw results."""

import importlib.util
import json

import pytest
import runs

RESULTS, DOCS = runs.ROOT / "results", runs.ROOT / "docs"


def script(name):
    spec = importlib.util.spec_from_file_location(name, runs.ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["robustness_digits", "robustness_mnist"])
def test_robustness(name):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    for table in script("robustness").tables(content["seeds"], content["epsilons"]):
        assert table in (DOCS / "robustness.md").read_text()


def test_privacy():
    content = json.loads((RESULTS / "privacy_digits.json").read_text())
    for table in script("privacy").tables(content["models"]):
        assert table in (DOCS / "privacy.md").read_text()


def test_differential_privacy():
    content = json.loads((RESULTS / "private_digits.json").read_text())
    assert script("private_teachers").table(content["runs"]) in (DOCS / "privacy.md").read_text()
