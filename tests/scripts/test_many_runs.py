"""Runs that a script starts in processes of their own, and the script's command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import runs

from cake_jax import models, stopping
from cake_jax.cli import many_runs
from cake_jax.types import CakeError

CONFIG = """
from cake_jax.config import default

def get_config(variant=""):
    config = default()
    config.dataset.name, config.method = "two_moons", "noise"
    config.synthesis.num_groups, config.synthesis.num_batches, config.synthesis.batch_size = 2, 1, 20
    config.teacher.epochs = config.student.epochs = 1
    return config
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    return tmp_path / "tiny.py"


def test_run_returns_its_results(config, tmp_path):
    results = many_runs.run(f"{config}:some", tmp_path / "run", ["--config.seed=5"])
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["config_name"], results["variant"], results["seed"]) == ("tiny", "some", 5)


@pytest.mark.filterwarnings("ignore:the load_module")  # config_flags calls it
def test_no_process_is_started_for_a_finished_run(config, tmp_path, monkeypatch, capsys):
    fields = ["--config.seed=5", "--config.student.model.options.width=7", "--quiet"]
    results = runs.command(f"--config={config}", f"--workdir={tmp_path / 'run'}", *fields, cwd=tmp_path)
    assert results.code == 0
    saved = json.loads((tmp_path / "run" / "results.json").read_text())
    monkeypatch.setattr(many_runs, "_call", lambda command, environment: 1)
    capsys.readouterr()
    assert many_runs.run(str(config), tmp_path / "run", fields) == saved
    assert capsys.readouterr().out == f"{tmp_path / 'run'} holds the finished run of this config; nothing to do\n"
    others = (
        [*fields, "--overwrite"],
        [*fields, "--overwrite=true"],
        ["--config.seed=6", *fields[1:]],
        [fields[0], "--config.student.model.options.width=8"],
        [*fields, "--config.nothing=1"],
    )
    for arguments in others:
        with pytest.raises(SystemExit, match="this run failed"):
            many_runs.run(str(config), tmp_path / "run", arguments)
    config.write_text(CONFIG.replace("batch_size = 2, 1, 20", "batch_size = 2, 1, 40"))
    with pytest.raises(SystemExit, match="this run failed"):
        many_runs.run(str(config), tmp_path / "run", fields)


def test_the_process_that_starts_runs_takes_no_device(config, tmp_path):
    """On a GPU, it would take the memory that its runs need."""
    fields = ["--config.student.views.ask=True"]
    assert runs.command(f"--config={config}", f"--workdir={tmp_path / 'run'}", *fields, cwd=tmp_path).code == 0
    lines = (
        "from pathlib import Path",
        "from cake_jax.cli import many_runs",
        f"many_runs.run({str(config)!r}, Path({str(tmp_path / 'run')!r}), {fields})",
        "from jax._src import xla_bridge",
        "print(xla_bridge.backends_are_initialized())",
    )
    ended = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, timeout=300)
    first, second = ended.stdout.splitlines()
    assert first.endswith("nothing to do")
    assert second == "False", ended.stderr


@pytest.mark.filterwarnings("ignore:the load_module")
def test_a_run_with_a_model_of_the_config_file_is_loaded(config, tmp_path, monkeypatch):
    own = 'from cake_jax import models\nmodels.MODELS["own"] = models.MODELS["logistic_regression"]\n'
    config.write_text(own + CONFIG.replace("return", 'config.student.model.name = "own"\n    return'))
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))
    assert runs.command(f"--config={config}", f"--workdir={tmp_path / 'run'}", cwd=tmp_path).code == 0
    del models.MODELS["own"]
    with pytest.raises(CakeError, match="'own' is not one of"):
        many_runs.record(tmp_path / "run")
    many_runs.run(str(config), tmp_path / "run", [])
    assert many_runs.record(tmp_path / "run").student.num_params == 6


def test_a_run_without_data_has_no_points_to_draw(config, tmp_path):
    first = tmp_path / "first"
    assert runs.command(f"--config={config}", f"--workdir={first}", cwd=tmp_path).code == 0
    assert many_runs.record(first).dataset.spec == many_runs.record(first).teacher.spec
    config.write_text(
        CONFIG.replace("two_moons", "none").replace(
            "return", "config.dataset.shape, config.dataset.num_classes = (2,), 2\n    return"
        )
    )
    fields = [f"--config.teacher.from_run={first}", "--config.run.evaluation=False"]
    assert runs.command(f"--config={config}", f"--workdir={tmp_path / 'second'}", *fields, cwd=tmp_path).code == 0
    assert many_runs.record(tmp_path / "second").dataset is None


def test_script_stops_at_a_failed_run_in_one_line_after_that_of_the_run(config, tmp_path):
    arguments = ["--config=tiny.py", "--models=a", "--workdir=w", "--out=out.json", "--config.synthesis.batch_size=0"]
    script = [sys.executable, str(runs.ROOT / "scripts" / "matrix.py"), *arguments]
    ended = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    first, second = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert first.startswith("error: synthesis.batch_size: 0 ")
    assert second.startswith("error: this run failed: ")
    assert second.endswith("--config=tiny.py:a-a --workdir=w/a-a-0 --config.synthesis.batch_size=0 --config.seed=0")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("code", "has_results"), [(0, False), (1, True), (-9, False)])
def test_a_failed_run_is_named(code, has_results, tmp_path, monkeypatch):
    if has_results:
        (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr(many_runs, "_call", lambda command, environment: code)
    with pytest.raises(SystemExit) as ended:
        many_runs.run("a.py", tmp_path, ["--dry_run"])
    assert ended.value.code == (
        f"error: this run failed: {sys.executable} -m cake_jax.cli --config=a.py --workdir={tmp_path} --dry_run"
    )


@pytest.mark.parametrize(
    ("send", "code", "message"),
    [
        (lambda process: process.terminate(), 143, stopping.MESSAGE),
        (lambda process: os.killpg(process.pid, signal.SIGINT), 130, stopping.INTERRUPTED_MESSAGE),
    ],
    ids=["SIGTERM to the script", "Ctrl-C, which reaches the run too"],
)
def test_a_signal_ends_a_script_and_its_run(send, code, message, config, tmp_path):
    """The run holds the pipe of its errors, so `communicate` would not return before it has ended."""
    config.write_text(CONFIG.replace("config.student.epochs = 1", "config.student.epochs = 1_000_000"))
    arguments = [f"--config={config}", "--config.seed=0,1", "--quiet", "--workdir=w"]
    # A process that a shell starts in the background ignores Ctrl-C, and so would its children.
    listening = (
        "import runpy, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "del sys.argv[0]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = [sys.executable, "-c", listening, str(runs.ROOT / "scripts" / "sweep.py"), *arguments]
    process = subprocess.Popen(script, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    first = tmp_path / "w" / "teacher-seed=0"
    deadline = time.monotonic() + 120
    try:
        while not (first / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (first / "metrics.jsonl").exists()
        send(process)
        _, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):  # both have ended
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code
    assert errors == f"{message}\n" * 2, "the run says it, and then the script"
    assert [path.name for path in (tmp_path / "w").iterdir()] == [first.name]


def test_files_for_results_have_a_folder_before_the_first_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", "--config=a.py", f"--out={tmp_path / 'new' / 'out.json'}"])
    many_runs.known_flags(many_runs.parser("A script."))
    assert (tmp_path / "new").is_dir()
    for path, reason in ((tmp_path, f"{tmp_path} is a folder"), ("/proc/none/out.json", "/proc/none: ")):
        monkeypatch.setattr(sys, "argv", ["script.py", "--config=a.py", f"--figure={path}"])
        with pytest.raises(SystemExit):
            many_runs.known_flags(many_runs.parser("A script."))
        assert capsys.readouterr().err.startswith(f"error: argument --figure: {reason}")


def parser_with_seeds():
    parser = many_runs.parser("A script.")
    parser.add_argument("--methods", default="cake,lake")
    parser.add_argument("--seeds", default="0", help="the seeds")
    return parser


def test_arguments_that_a_script_does_not_know_go_to_the_runs(monkeypatch):
    others = ["--config.student.epochs=3", "--overwrite", "--cpu_devices", "2"]
    monkeypatch.setattr(sys, "argv", ["script.py", "--config=a.py", *others, "--seeds=1,2"])
    flags, unknown = many_runs.known_flags(parser_with_seeds())
    assert unknown == others
    assert (flags.config, flags.seeds, flags.methods) == ("a.py", "1,2", "cake,lake")
    assert (flags.workdir, flags.out, flags.figure) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config=a.py", "--method=cake"], "error: '--method=cake' is no flag; see --help; did you mean methods?"),
        (["--config=a.py", "--config.seed=3"], "error: --config.seed: this script sets it; use --seeds; see --help"),
        (["--config=a.py", "--xyz"], "error: '--xyz' is no flag; see --help"),
        (["--config=a.py", "--out"], "error: argument --out: expected one argument; see --help"),
        ([], "error: the following arguments are required: --config; see --help"),
    ],
)
def test_a_wrong_flag_is_answered_in_one_line(arguments, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        many_runs.known_flags(parser_with_seeds())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2)])
def test_a_script_explains_its_flags(arguments, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        many_runs.known_flags(parser_with_seeds())
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert "--config" in out + err
    assert ("the seeds" in out) == (code == 0)


def test_written_results_have_one_command_that_of_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--seeds=1"])
    many_runs.write(tmp_path / "out.json", [{"seed": 1, "environment": {"jax": "1", "command": "python a.py"}}])
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["command"].endswith("script.py --seeds=1")
    assert content["runs"] == [{"seed": 1, "environment": {"jax": "1"}}]
