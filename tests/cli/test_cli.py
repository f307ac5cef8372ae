"""The command line as a user meets it: wrong inputs, dry run, config printing, the installed command."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def cli(*arguments, cwd=ROOT, timeout=120):
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout)


@pytest.mark.parametrize("users_own", [True, False])
def test_compiled_programs_are_kept(users_own, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own") if users_own else "")
    tiny = ["--config.run.student=False", "--config.teacher.epochs=1", "--config.synthesis.num_batches=1"]
    process = cli("--config=configs/two_moons.py", f"--workdir={tmp_path / 'run'}", *tiny)
    assert process.returncode == 0, process.stderr
    kept = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert kept
    assert all(path.is_relative_to(tmp_path / ("own" if users_own else "cache/cake_jax")) for path in kept)


def one_line(process):
    """The error of a failed command: a single line, no traceback."""
    assert process.returncode != 0
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stdout
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/digits.py", "--config.synthesis.nmu_steps=3"], "config.synthesis.nmu_steps: no such field"),
        (["--config=configs/digits.py", "--config.nope=3"], "config.nope: no such field"),
        (["--config=configs/digits.py", "--config.seed=abc"], "config.seed"),
        (["--config=configs/digits.py", "--config.synthesis.num_groups=11"], "synthesis.num_groups: 11 groups"),
        (
            ["--config=configs/digits.py", "--config.synthesis.batch_size=7"],
            "synthesis.batch_size: 7 is not a multiple",
        ),
        (["--config=configs/digits.py", "--config.method=bread"], "'bread' is not one of cake"),
        (["--config=configs/digits.py", "--config.teacher.model.name=vgg"], "model.name: 'vgg' is not one of"),
        (["--config=configs/digits.py", "--config.run.teacher=False"], "teacher.from_run"),
        (["--config=configs/digits.py", "--config.teacher.from_run=missing"], "missing"),
        (["--config=configs/digits.py", "--config.dataset.name=imagenot"], "dataset.name: 'imagenot'"),
        (["--config=configs/digits.py:nope"], "no variant 'nope'"),
        (["--config=configs/nope.py"], "nope.py"),
        (["--config=configs/digits.py", "--nope"], "nope"),
        (["--config=configs/digits.py", "stray"], "stray"),
        ([], "--config"),
    ],
)
def test_wrong_input_gives_one_clear_line(arguments, expected, tmp_path):
    assert expected in one_line(cli(*arguments, f"--workdir={tmp_path / 'run'}"))


def test_a_missing_data_set_fails_fast(tmp_path):
    started = time.monotonic()
    line = one_line(
        cli(
            "--config=configs/mnist.py:smoke",
            f"--config.dataset.data_dir={tmp_path}",
            f"--workdir={tmp_path / 'run'}",
            timeout=60,
        )
    )
    assert "dataset.data_dir" in line
    assert str(tmp_path) in line
    assert time.monotonic() - started < 30, "importing and failing"


def test_dry_run_counts_and_leaves_nothing(tmp_path):
    process = cli("--config=configs/digits.py:smoke", "--dry_run", f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    config = json.loads(cli("--config=configs/digits.py:smoke", "--print_config").stdout)
    synthesis = config["synthesis"]
    samples = synthesis["num_batches"] * synthesis["batch_size"]
    assert f"{samples:,} samples" in process.stdout
    assert f"{samples * synthesis['num_steps']:,} gradient" in process.stdout
    assert not (tmp_path / "run").exists()


def test_the_installed_command_runs_a_config_from_anywhere(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cake_jax.config import default\n\n"
        "def get_config(variant=''):\n"
        "    config = default()\n"
        "    config.teacher.epochs = config.student.epochs = 1\n"
        "    config.synthesis.num_batches, config.synthesis.num_steps = 1, 2\n"
        "    return config\n"
    )
    command = [str(Path(sys.executable).with_name("cake-jax")), "--config=mine.py", "--config.seed=4"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "runs" / "mine" / "results.json").read_text())
    assert (results["config_name"], results["variant"], results["seed"]) == ("mine", "", 4)


def test_a_config_that_lacks_a_field_is_named(tmp_path):
    (tmp_path / "bare.py").write_text(
        "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'seed': 0})\n"
    )
    assert "config.black_box.answers: missing" in one_line(cli(f"--config={tmp_path / 'bare.py'}"))


def test_the_entry_script_is_short():
    assert len((ROOT / "scripts" / "run.py").read_text().splitlines()) < 70
