"""Generated command lines: each works, or ends in one line, and nothing is left half-written."""

import json
import os
import shutil

import pytest
import runs
from generated_arguments import command_lines
from hypothesis import HealthCheck, given, settings
from limits import little_time

from cake_jax import load_run
from cake_jax.types import CakeError

# `WRONG_INPUTS=1000 pytest tests/wrong_inputs` takes as many examples of each kind.
EXAMPLES = int(os.environ.get("WRONG_INPUTS", "50"))
# A run of this config takes a few seconds.
SECONDS = 120


CONFIG = """
from cake_jax.config import default

def get_config(variant=""):
    config = default()
    config.dataset.name = "two_moons"
    config.dataset.max_train_examples = 60
    config.teacher.epochs = config.student.epochs = 1
    config.synthesis.num_groups = config.synthesis.num_batches = config.synthesis.num_steps = 2
    config.synthesis.batch_size = 20
    config.black_box.tries = 1
    config.methods.ideal.num_steps = config.methods.adversarial.num_steps = 2
    config.methods.dfme.num_steps = config.methods.generative.num_steps = 2
    return config
"""


def check_message(text):
    """A message is one line that a person can read: neither empty, nor code, nor a page long."""
    assert text.strip()
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    for mark in ("Traceback", "<class", "object at 0x", "\x1b[", "lambda"):
        assert mark not in text


def check_folder(folder):
    """A run's folder is missing, or loads. It has no unfinished file, and results only if the run was finished."""
    if not folder.exists():
        return
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    assert not [path for path in folder.rglob("*") if "tmp" in path.name]
    if (folder / "config.json").exists():
        load_run(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "tiny.py").write_text(CONFIG)
    return folder


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="WRONG_INPUTS" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(arguments=command_lines())
def test_a_command_works_or_ends_in_one_line(place, arguments):
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with little_time(SECONDS):
        ended = runs.command("--config=tiny.py", f"--workdir={folder}", *arguments, cwd=place)
    assert "Traceback" not in ended.out + ended.err
    *notes, last = ended.err.splitlines() or [""]
    if ended.code == 0:
        notes.append(last)
    else:
        assert last.startswith("error: ")
        assert ended.code in (1, 2)
        check_message(last)
    for note in filter(None, notes):
        assert note.startswith(("note: ", "warning: ")), note
        check_message(note)
    check_folder(folder)
    is_dry = any(flag in arguments for flag in ("--dry_run", "--print_config"))
    assert (folder / "results.json").exists() == (ended.code == 0 and not is_dry)


def test_the_harness_sees_a_traceback_a_page_and_a_broken_file(tmp_path):
    for text in ("", "a\nb", "Traceback (most recent call last)", "x" * 1000, "<class 'int'>"):
        with pytest.raises(AssertionError):
            check_message(text)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises((json.JSONDecodeError, CakeError)):
        check_folder(tmp_path)
