"""Methods beside each other: one teacher a seed, one table, one picture; and the two methods that frame the others."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cake_jax import comparison, data, experiment, methods
from cake_jax.config import default
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.types import CakeError, DataSpec

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare.py"


def test_methods_share_a_seed_s_teacher_and_are_compared(tmp_path):
    titles = ["real", "real:hard_label=teacher"]
    command = [sys.executable, str(SCRIPT), "--config=configs/two_moons.py:smoke", f"--methods={','.join(titles)}"]
    command += ["--seeds=3,4", f"--workdir={tmp_path}", f"--out={tmp_path / 'out.json'}"]
    command += [f"--figure={tmp_path / 'figure.png'}", "--config.student.epochs=1"]
    done = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert [(run["title"], run["seed"]) for run in runs] == [(title, seed) for seed in (3, 4) for title in titles]
    assert [run["method"] for run in runs] == ["real"] * 4
    assert runs[0]["teacher"] == runs[1]["teacher"] != runs[2]["teacher"]
    assert runs[0]["samples"]["count"] == runs[1]["samples"]["count"] > 0
    table = done.stdout[done.stdout.index("| method") :].splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == titles
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000  # three panels: the teacher's and two students'
    first, second = (
        json.loads((tmp_path / f"{title.replace(':', '-')}-4/config.json").read_text()) for title in titles
    )
    assert [config["methods"]["real"]["hard_label"] for config in (first, second)] == ["data", "teacher"]
    assert (first["teacher"]["from_run"], second["teacher"]["from_run"]) == ("", str(tmp_path / "real-4"))
    assert first["student"]["epochs"] == second["student"]["epochs"] == 1


def a_run(title, seed, accuracy, forward=100):
    return {
        "title": title,
        "seed": seed,
        "teacher": {"test_accuracy": 0.9},
        "student": {"test_accuracy": accuracy, "test_agreement": None, "grid_agreement": None},
        "samples": {"count": 50},
        "queries": {"synthesis": {"forward": forward, "gradient": 0}},
        "seconds": {"synthesis": 1.0, "student": 0.5},
        "logit_gaps": None,
    }


def test_the_table_has_mean_and_deviation():
    """0.8 and 0.9: mean 85, sample deviation 7.07; what nobody knows has no column."""
    table = comparison.table([a_run("a", 0, 0.8), a_run("b", 0, 0.5), a_run("a", 1, 0.9)]).splitlines()
    assert "agreement" not in table[0]
    assert "logit gap" not in table[0]
    assert table[2] == "| a | 85.00 ± 7.07 | 50 | 100 | 0 | 1.50 ± 0.00 |"
    assert table[3].startswith("| b | 50.00 ± 0.00 |")


def test_the_picture_of_accuracies_has_a_line_a_method():
    axes = comparison.accuracies([a_run("a", 0, 0.8), a_run("b", 0, 0.5), a_run("a", 1, 0.9)]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [80, 90])
    np.testing.assert_allclose(axes.lines[1].get_xdata(), [85])


@pytest.mark.parametrize("hard_label", ["data", "teacher"])
def test_real_labels_the_training_images_in_turn(tmp_path, hard_label):
    """3 rounds of 40 out of 50 training points: the last 20 are the first ones again."""
    config = default()
    config.dataset.name, config.dataset.max_train_examples, config.method = "two_moons", 50, "real"
    config.methods.real.hard_label = hard_label
    config.teacher.epochs = config.student.epochs = 1
    config.teacher.batch_size = config.student.batch_size = 20
    config.synthesis.num_batches, config.synthesis.batch_size, config.synthesis.num_groups = 3, 40, 2
    results = experiment.run(config, tmp_path, config_name="moons")
    assert results["queries"]["synthesis"] == {"forward": 120, "gradient": 0}
    run, dataset = experiment.load(tmp_path), data.load("two_moons", max_train_examples=50)
    samples, rows = run.samples.select(), np.arange(120) % 50
    np.testing.assert_array_equal(samples.x, dataset.train_x[rows])
    np.testing.assert_allclose(samples.logits, run.teacher(samples.x), rtol=1e-4, atol=1e-5)
    expected = dataset.train_y[rows] if hard_label == "data" else samples.logits.argmax(-1)
    np.testing.assert_array_equal(samples.target, expected)
    assert (dataset.train_y[rows] != samples.logits.argmax(-1)).any()  # or the two would be the same


def test_real_refuses_an_unknown_label():
    with pytest.raises(CakeError, match=r"methods\.real\.hard_label: 'nope'"):
        methods.get("real").settings(SynthesisSettings(), {"hard_label": "nope"}, DataSpec((2,), 10))


def test_naive_leaves_out_all_but_the_cross_entropy():
    spec, weights = DataSpec((8, 8, 1), 10), Weights(cls=2.0, contr=3.0, tv=4.0, entropy=5.0)
    common = SynthesisSettings(weights=weights, start="smooth", schedule="linear")
    bare = methods.get("naive").settings(common, {"image_priors": False}, spec)
    assert bare.weights == Weights(cls=2.0, contr=0.0)
    assert (bare.start, bare.schedule) == ("normal", "constant")
    with_priors = methods.get("naive").settings(common, {"image_priors": True}, spec)
    assert with_priors.weights == Weights(cls=2.0, contr=0.0, tv=4.0)
    assert with_priors.start == "smooth"
