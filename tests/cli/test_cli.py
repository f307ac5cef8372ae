"""The command line: wrong inputs, printing instead of running, and how it is started."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import runs
from runs import ROOT, error_of

from cake_jax import config as config_lib, stopping
from cake_jax.cli import processes
from cake_jax.run import experiment
from cake_jax.run.run_folder import flat

DIGITS = "--config=configs/digits.py"
SMOKE = "--config=configs/two_moons.py:smoke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DIGITS, "--config.synthesis.nmu_steps=3"], "config.synthesis.nmu_steps: no such field"),
        ([DIGITS, "--config.nope=3"], "config.nope: no such field"),
        ([DIGITS, "--config.seed=abc"], "config.seed: 'abc' is not a whole number"),
        ([DIGITS, "--config.student.learning_rate=fast"], "config.student.learning_rate: 'fast' is not a number"),
        ([DIGITS, "--config.run.student=maybe"], "config.run.student: 'maybe' is not true or false"),
        ([DIGITS, "--cpu_devices=x"], "cpu_devices: 'x' is not a whole number"),
        ([DIGITS, "--config.run..student=1"], "config.run..student: no such field; "),
        ([f"{DIGITS}:nope"], "config: no variant 'nope'; there are smoke, "),
        ([DIGITS, "--config.synthesis.nmu_steps=3"], "did you mean config.synthesis.num_steps?"),
        (["--config=configs/nope.py"], "config: there is no file configs/nope.py"),
        (["--config=configs/digit.py"], "config: there is no file configs/digit.py; did you mean configs/digits.py?"),
        ([DIGITS, "--nope"], "'nope'"),
        (["--config=digits", "--nope"], "'nope'"),
        ([DIGITS, "stray"], "'stray' is no flag"),
        ([], "name a config: --config="),
    ],
)
def test_arguments_that_cannot_be_parsed_are_refused(arguments, message, tmp_path):
    ended = runs.command(*arguments, f"--workdir={tmp_path / 'run'}")
    assert ended.code == 2
    assert message in error_of(ended)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([f"{DIGITS}:nope"], 2, "config: no variant 'nope'; there are smoke, "),
        (
            [DIGITS, "--config.synthesis.num_steps=-1"],
            1,
            "synthesis.num_steps: -1 is below 0",
        ),
    ],
)
def test_a_wrong_input_is_one_line_of_the_script(arguments, code, message, tmp_path):
    ended = runs.script(*arguments, f"--workdir={tmp_path / 'run'}")
    assert ended.code == code
    assert error_of(ended).startswith(message)


def test_a_data_set_that_is_missing_is_named(tmp_path):
    arguments = ["--config=configs/mnist.py:smoke", f"--config.dataset.data_dir={tmp_path}"]
    ended = runs.command(*arguments, f"--workdir={tmp_path / 'run'}")
    assert ended.code == 1
    assert error_of(ended).startswith("dataset.data_dir: ")
    assert str(tmp_path) in error_of(ended)


def test_a_config_that_lacks_a_field_is_named(tmp_path):
    content = "from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({'seed': 0})\n"
    (tmp_path / "bare.py").write_text(content)
    ended = runs.command(f"--config={tmp_path / 'bare.py'}")
    assert ended.code == 2
    assert error_of(ended).startswith("config.black_box.answers: missing")


def test_a_mistake_in_a_config_file_is_named_without_a_traceback(tmp_path):
    (tmp_path / "wrong.py").write_text("def get_config():\n    raise TypeError('seven is no string')\n")
    assert "seven is no string" in error_of(runs.command(f"--config={tmp_path / 'wrong.py'}"))


def test_options_of_a_model_need_not_be_in_the_config():
    arguments = ["--config.student.model.options.width=7", "--config.student.model.options.features=(8,9)"]
    ended = runs.command(SMOKE, "--print_config", *arguments, "--config.teacher.model.options.name=wide")
    config = json.loads(ended.out)
    assert config["student"]["model"]["options"] == {"width": 7, "features": [8, 9]}
    assert config["teacher"]["model"]["options"] == {"name": "wide"}


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_the_help_lists_the_flags(flag):
    ended = runs.command(flag)
    assert (ended.code, ended.err) == (0, "")
    for name in ("config", "workdir", "overwrite", "dry_run", "print_config", "processes"):
        assert re.search(rf"^ *--(\[no\])?{name}: ", ended.out, re.M)


def test_a_dry_run_counts_and_leaves_nothing(tmp_path):
    ended = runs.command(SMOKE, "--dry_run", f"--workdir={tmp_path / 'run'}")
    assert (ended.code, ended.err) == (0, "")
    synthesis = json.loads(runs.command(SMOKE, "--print_config").out)["synthesis"]
    samples = synthesis["num_batches"] * synthesis["batch_size"]
    assert f"{samples:,} samples" in ended.out
    assert f"{samples * synthesis['num_steps']:,} gradient" in ended.out
    assert not (tmp_path / "run").exists()


def test_what_a_run_changes_by_itself_is_one_line(tmp_path):
    """The digits have ten classes."""
    ended = runs.script(DIGITS, "--config.synthesis.num_groups=12", "--dry_run", f"--workdir={tmp_path / 'run'}")
    assert (ended.code, ended.err) == (
        0,
        "note: synthesis.num_groups: 10 instead of 12, because there are 10 classes\n",
    )


def test_the_printed_config_has_every_field_and_its_override():
    ended = runs.command(SMOKE, "--print_config", "--config.seed=4", "--config.teacher.augment=('flip','crop')")
    config = json.loads(ended.out)
    assert (config["seed"], config["teacher"]["augment"]) == (4, ["flip", "crop"])
    assert dict(flat(config)).keys() == dict(flat(config_lib.default().to_dict())).keys()


def test_a_missing_library_stops_a_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    ended = runs.command(SMOKE, "--config.log.tensorboard=True", f"--workdir={tmp_path / 'run'}")
    assert error_of(ended) == "log.tensorboard: needs tensorboardX (pip install tensorboardX)"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("overwrite", "quiet"), [(False, True), (True, False)])
def test_the_flags_reach_the_run(overwrite, quiet, tmp_path, monkeypatch):
    received = {}

    def run(settings, workdir, **options):
        received.update(options, seed=settings.seed, workdir=Path(workdir))

    monkeypatch.setattr(experiment, "run", run)
    flags = ["--overwrite"] if overwrite else [f"--workdir={tmp_path / 'run'}"]
    ended = runs.command(SMOKE, "--config.seed=4", *flags, *["--quiet"] * quiet)
    assert (ended.code, ended.err) == (0, "")
    workdir = Path("runs/two_moons-smoke") if overwrite else tmp_path / "run"
    expected = {"config_name": "two_moons", "variant": "smoke", "overwrite": overwrite, "quiet": quiet}
    assert received == {**expected, "seed": 4, "workdir": workdir}


@pytest.mark.parametrize(
    ("options", "message"),
    [([], stopping.INTERRUPTED_MESSAGE), (["--processes=2"], stopping.INTERRUPTED_MESSAGE), (["--launcher=1"], "")],
)
def test_an_interrupted_run_says_once_how_to_go_on(options, message, tmp_path, monkeypatch):
    """Ctrl-C reaches a launcher and its processes. The launcher says it for all."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupted)
    monkeypatch.setattr(processes, "launch", interrupted)
    monkeypatch.setattr(processes, "end_with", lambda launcher: None)
    ended = runs.command(SMOKE, f"--workdir={tmp_path / 'run'}", *options)
    assert (ended.code, ended.err.strip()) == (130, message)


def test_a_number_of_devices_below_zero_is_refused():
    assert "cpu_devices" in runs.error_of(runs.command(SMOKE, "--cpu_devices=-1"))


def test_an_error_of_the_library_is_not_hidden(tmp_path, monkeypatch):
    """A mistake in the library itself ends with its traceback."""

    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(experiment, "run", broken)
    with pytest.raises(ZeroDivisionError):
        runs.command(SMOKE, f"--workdir={tmp_path / 'run'}")


def test_processes_are_launched_with_the_same_arguments(tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(processes, "launch", lambda argv, count: launched.append((argv, count)) or 7)
    ended = runs.command(SMOKE, "--processes=3", f"--workdir={tmp_path}")
    assert ended.code == 7
    devices = f"--cpu_devices={jax.device_count()}"
    assert launched == [([devices, SMOKE, "--processes=3", f"--workdir={tmp_path}", "--processes=0"], 3)]


@pytest.mark.parametrize("users_own", [True, False])
def test_compiled_programs_are_kept(users_own, tmp_path, monkeypatch):
    """In the folder that the user has set, else in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own") if users_own else "")
    options = {}
    monkeypatch.setattr(jax.config, "update", options.__setitem__)
    assert runs.command(SMOKE, "--print_config").code == 0
    folder = options.get("jax_compilation_cache_dir")
    assert folder is None if users_own else Path(folder).is_relative_to(tmp_path / "cache" / "cake_jax")


def test_the_installed_command_runs_a_config_from_anywhere(tmp_path, monkeypatch):
    """And keeps its compiled programs in the user's cache folder."""
    (tmp_path / "mine.py").write_text(
        "from cake_jax.config import default\n\n"
        "def get_config(variant=''):\n"
        "    config = default()\n"
        "    config.dataset.name = 'two_moons'\n"
        "    config.run.synthesis = config.run.student = config.run.evaluation = False\n"
        "    config.teacher.epochs, config.dataset.max_train_examples, config.synthesis.num_groups = 1, 600, 2\n"
        "    return config\n"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    line = [str(Path(sys.executable).with_name("cake-jax")), "--config=mine.py", "--config.seed=4"]
    process = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "runs" / "mine" / "results.json").read_text())
    assert (results["config_name"], results["variant"], results["seed"]) == ("mine", "", 4)
    assert any(path.is_file() for path in (tmp_path / "cache" / "cake_jax").rglob("*-cache"))


def test_the_entry_script_is_short():
    assert len((ROOT / "scripts" / "run.py").read_text().splitlines()) < 70


@pytest.mark.parametrize(
    ("message", "is_shown"),
    [("Event loop is closed", False), ("another error", True)],
    ids=["late error of a failed checkpoint", "another"],
)
def test_an_error_that_nothing_can_catch_is_shown(message, is_shown, monkeypatch, capsys):
    class Failing:
        def __del__(self):
            raise RuntimeError(message)

    monkeypatch.setattr(sys, "unraisablehook", sys.modules["cake_jax.cli.main"]._show_unraisable)
    Failing()
    assert (message in capsys.readouterr().err) == is_shown
