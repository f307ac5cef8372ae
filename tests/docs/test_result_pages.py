"""The tables of pages that no command fills are those of their raw results."""

import json

import pytest
import runs

from cake_jax.report import cheapest, matrix

RESULTS, DOCS = runs.ROOT / "results", runs.ROOT / "docs"


@pytest.mark.parametrize("name", ["robustness_digits", "robustness_mnist"])
def test_robustness(name):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    for table in runs.module_of("robustness").tables(content["seeds"], content["epsilons"]):
        assert table in (DOCS / "robustness.md").read_text()


@pytest.mark.parametrize(
    ("name", "models"),
    [("ladder_digits", "resnet20 resnet14 resnet8 thin8"), ("mnist_matrix_equal", "cnn mlp resnet4 vit_small")],
)
def test_matrices(name, models):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    assert matrix.table(content["runs"], models.split()) in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("name", ["cifar10_trials", "mnist_strokes_trials"])
def test_trials_on_held_out_images(name):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    for run in content["runs"].values():
        assert f"{100 * run['accuracy']:.2f}" in (DOCS / "results.md").read_text().split()


def test_small_students():
    families = [
        cheapest.choices(json.loads((RESULTS / f"small_digits_{name}.json").read_text())["runs"])
        for name in ("asked", "stored")
    ]
    table = cheapest.table([one for family in families for one in family], (70, 80, 90, 95, 97, 98, 99))
    assert table in (DOCS / "small_students.md").read_text()


def test_agreement():
    content = json.loads((RESULTS / "agreement_interval.json").read_text())
    assert runs.module_of("agreement_interval").table(content["runs"]) in (DOCS / "agreement.md").read_text()


def test_privacy():
    content = json.loads((RESULTS / "privacy_digits.json").read_text())
    for table in runs.module_of("privacy").tables(content["models"]):
        assert table in (DOCS / "privacy.md").read_text()


def test_differential_privacy():
    content = json.loads((RESULTS / "private_digits.json").read_text())
    assert runs.module_of("private_teachers").table(content["runs"]) in (DOCS / "privacy.md").read_text()
