"""Configs by name, and a release that has them outside of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import runs
from cake_errors import message_of

import cake_jax
from cake_jax.cli import shipped_configs

ROOT = Path(__file__).parents[2]


def test_names_are_paths_and_paths_stay(tmp_path, monkeypatch):
    digits = str(ROOT / "configs" / "digits.py")
    assert shipped_configs.path_of("digits") == digits
    assert shipped_configs.path_of("digits:few") == f"{digits}:few"
    for path in ("configs/digits.py", "configs/digits.py:few", "gone.py", "some/digits", ""):
        assert shipped_configs.path_of(path) == path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # such as the folder of a run
    assert shipped_configs.path_of("digits") == digits
    (tmp_path / "digits").rmdir()
    (tmp_path / "digits").write_text("")
    assert shipped_configs.path_of("digits:few") == "digits:few"


def test_an_unknown_name_is_answered_with_the_names():
    assert (
        message_of(shipped_configs.path_of, "digit:few") == "config: there is no config 'digit'; did you mean digits?"
    )
    message = message_of(shipped_configs.path_of, "zzz")
    assert message.startswith("config: there is no config 'zzz'; name a file, or one of cifar10, cifar100, ")


def test_only_the_config_of_a_command_line_is_replaced():
    digits = str(ROOT / "configs" / "digits.py")
    argv = ["run.py", "--config=digits:few", "--workdir=digits", "--config.method=noise", "-config", "digits", "digits"]
    expected = [argv[0], f"--config={digits}:few", *argv[2:5], digits, "digits"]
    assert shipped_configs.with_paths(argv) == expected


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("digts", "config: there is no config 'digts'; did you mean digits?"),
        ("configs/digts.py", "config: there is no file configs/digts.py; did you mean configs/digits.py?"),
    ],
)
def test_a_wrong_config_is_one_line(config, line):
    assert runs.error_of(runs.command(f"--config={config}", "--dry_run")) == line


def test_the_command_takes_a_name(tmp_path):
    ended = runs.command("--config=two_moons:smoke", "--dry_run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "1,000 samples (2 x 500), 8 steps" in ended.out


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The paths of a wheel and an sdist, which are built in a copy of the sources."""
    folder = tmp_path_factory.mktemp("release")
    for name in ("cake_jax", "configs", "docs", "notebooks", "results", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / "source" / name)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "source")
    build = "from setuptools import build_meta as b; b.build_wheel('..'); b.build_sdist('..')"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True, timeout=300)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_a_wheel_runs_outside_the_checkout(release, tmp_path):
    with zipfile.ZipFile(release[0]) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "site")
    assert not any(name.startswith(("tests", "scripts", "configs/")) for name in names)
    shipped = {Path(name).name for name in names if name.startswith("cake_jax/configs/")}
    assert shipped == {path.name for path in (ROOT / "configs").glob("*.py")}
    (tmp_path / "empty").mkdir()
    code = f"import cake_jax; assert cake_jax.__file__.startswith('{tmp_path}'); from cake_jax.cli import main; main()"
    command = [sys.executable, "-c", code, "--config=two_moons:smoke", "--workdir=run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "empty" / "run"
    assert json.loads((run / "results.json").read_text())["config_name"] == "two_moons"
    assert (run / "report.html").exists()


def test_an_sdist_has_all_that_a_checkout_has(release):
    with tarfile.open(release[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for name in ("configs/digits.py", "scripts/run.py", "tests/runs.py", "docs/methods.md", "notebooks/cake_jax.ipynb"):
        assert name in names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"} <= names
    assert not any("__pycache__" in name for name in names)


def test_the_citation_has_the_version_of_the_package():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", text, re.M)[1] == cake_jax.__version__
    assert "arxiv.org/abs/2306.02090" in text
