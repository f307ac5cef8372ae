"""Progress on a terminal and without one, the time left, and traces."""

import contextlib
import json
import time
from typing import NamedTuple

import jax
import pytest
import runs
from jax.profiler import ProfileData

from cake_jax.methods import METHODS
from cake_jax.run import watch
from cake_jax.run.watch import Watch

GUIDED, OTHER = "student_accuracy", "target_accuracy"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: `clock[0]` is its time."""
    now = [0.0]
    monkeypatch.setattr(watch, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal():
    return runs.Terminal()


def lines(capsys, clock, seconds, *, total=100, done=0, quiet=False):
    """The lines that a stage prints whose items take so many seconds each."""
    with Watch(quiet).progress("student", "epochs", total, done) as progress:
        for taken in seconds:
            clock[0] += taken
            progress.update({"accuracy": 0.93})
    return capsys.readouterr().err.splitlines()


def test_a_line_says_what_is_done_and_how_long_the_rest_takes(clock, capsys):
    assert lines(capsys, clock, [40.0] * 3, total=4_000) == [
        "student: 1 of 4,000 epochs, accuracy 0.930",
        "student: 2 of 4,000 epochs, accuracy 0.930, 44.4 h left",
        "student: 3 of 4,000 epochs, accuracy 0.930, 44.4 h left",
    ]


def test_lines_are_30_seconds_apart(clock, capsys):
    numbers = [line.split()[1] for line in lines(capsys, clock, [7.0] * 20)]
    assert numbers == ["5", "10", "15", "20"]


def test_a_short_stage_prints_nothing(clock, capsys):
    assert lines(capsys, clock, [7.0] * 4) == []


@pytest.mark.parametrize("slow", [[1000.0], [1000.0, 300.0], [1000.0, 300.0, 300.0]])
def test_items_that_compile_do_not_distort_the_time_left(slow, clock, capsys):
    """Sixteen items of 30 seconds are left in the end."""
    printed = lines(capsys, clock, [*slow, *[30.0] * (84 - len(slow))])
    assert printed[-1].endswith("84 of 100 epochs, accuracy 0.930, 8 min left")
    assert printed[2 * len(slow) - 1].endswith(f"{(100 - 2 * len(slow)) * 30 / 60:.0f} min left")


def test_the_time_left_follows_items_that_become_slower(clock, capsys):
    printed = lines(capsys, clock, [1.0] * 40 + [60.0] * 20)
    assert printed[-1].endswith("60 of 100 epochs, accuracy 0.930, 40 min left")


def test_a_resumed_run_counts_only_what_it_does_itself(clock, capsys):
    """Ten items are left of a hundred. After two of them, eight are left."""
    assert lines(capsys, clock, [30.0, 30.0], done=90) == [
        "student: 91 of 100 epochs, accuracy 0.930",
        "student: 92 of 100 epochs, accuracy 0.930, 4 min left",
    ]


def test_processes_share_the_items(clock, capsys):
    """Two processes make two mini-batches in 40 seconds. The last one has no partner."""
    with Watch().progress("synthesis", "mini-batches", 5, 0) as progress:
        for _ in range(3):
            clock[0] += 40.0
            progress.update({}, 2)
    assert capsys.readouterr().err.splitlines() == [
        "synthesis: 2 of 5 mini-batches",
        "synthesis: 4 of 5 mini-batches, 20 s left",
        "synthesis: 5 of 5 mini-batches",
    ]


def test_quiet_shows_nothing_on_a_terminal_and_without(clock, capsys, terminal):
    assert lines(capsys, clock, [40.0] * 3, quiet=True) == []
    with contextlib.redirect_stderr(terminal):
        lines(capsys, clock, [40.0] * 3, quiet=True)
    assert terminal.getvalue() == ""


def test_other_processes_show_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr("cake_jax.parallel.is_first", lambda: False)
    assert lines(capsys, clock, [40.0] * 3) == []


@pytest.mark.parametrize(
    ("stage", "unit", "values"),
    [
        ("teacher", "epochs", {"accuracy": 1.0, "loss": 12.345}),
        ("student", "epochs", {"accuracy": 1.0, "loss": 12.345}),
        ("synthesis", "mini-batches", {GUIDED: 1.0}),
        ("synthesis", "mini-batches", {OTHER: 1.0}),
    ],
)
def test_the_longest_line_of_a_stage_fits_80_columns(stage, unit, values, clock, terminal):
    """1,190 of 2,000 items of 8.7 seconds are done. So the time left is 117 minutes, the longest text."""
    with contextlib.redirect_stderr(terminal), Watch().progress(stage, unit, 2_000, 1_187) as progress:
        for _ in range(3):
            clock[0] += 8.7
            progress.update(values)
    last = terminal.drawn()[-1]
    assert last.startswith(f"{stage}: 1,190 of 2,000 {unit}, ")
    assert " 117 min left |" in last
    assert max(map(len, terminal.drawn())) <= 80


def test_the_bar_of_a_resumed_stage_begins_where_the_stage_was(terminal):
    with contextlib.redirect_stderr(terminal), Watch().progress("student", "epochs", 4, 3):
        pass
    (bar,) = {line.split("|")[1] for line in terminal.drawn() if line.startswith("student: 3 of 4 epochs |")}
    assert bar.count("#") == pytest.approx(3 / 4 * len(bar), abs=1)


def test_the_bar_of_a_run_names_its_values(terminal, tmp_path):
    with contextlib.redirect_stderr(terminal):
        runs.run(runs.small_config(), tmp_path / "run", report=False)
    drawn = terminal.drawn()
    for start in ("teacher: 3 of 3 epochs, accuracy ", "student: 3 of 3 epochs, accuracy "):
        assert any(line.startswith(start) and ", loss " in line for line in drawn)
    assert any(line.startswith("synthesis: 3 of 3 mini-batches, target accuracy ") for line in drawn)
    assert max(map(len, drawn)) <= 80


def test_a_method_may_have_values_of_its_own(finished, terminal, tmp_path, monkeypatch):
    class Info(NamedTuple):
        spread: float

    noise = METHODS["noise"]

    def make_round(*arguments):
        made = noise.make_round(*arguments)
        return made._replace(info=Info(1.0))

    monkeypatch.setitem(METHODS, "noise", noise._replace(make_round=make_round))
    config = runs.small_config(**{"method": "noise", "teacher.from_run": str(finished), "run.student": False})
    with contextlib.redirect_stderr(terminal):
        runs.run(config, tmp_path / "run", report=False)
    assert any(line.startswith("synthesis: 3 of 3 mini-batches |") for line in terminal.drawn())


def test_a_quiet_run_prints_the_path_of_its_report_and_its_warnings(tmp_path, capsys):
    config = runs.small_config(**{"teacher.epochs": 1, "teacher.learning_rate": 1e-9})
    runs.run(config, tmp_path / "run", report=False, quiet=True)
    captured = capsys.readouterr()
    assert captured.out == f"report: {tmp_path / 'run' / 'report.html'}\n"
    assert captured.err
    assert all(line.startswith("warning: ") for line in captured.err.splitlines())


def traced_events(folder):
    """The names of the events in the traces of a folder."""
    return {
        event.name
        for path in folder.rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
    }


def test_a_profiled_run_has_a_trace_of_each_stage_and_the_same_results(finished, tmp_path):
    runs.run(runs.small_config(**{"log.profile": True}), tmp_path / "run", variant="small", report=False)
    for stage in ("teacher", "synthesis", "student"):
        assert len(list((tmp_path / "run" / "profile" / stage).rglob("*.xplane.pb"))) == 1
        assert traced_events(tmp_path / "run" / "profile" / stage)
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(finished)
    # A run without traces continues one with traces.
    runs.drop_results(tmp_path / "run", "student")
    runs.run(runs.small_config(), tmp_path / "run", variant="small", report=False)
    assert not json.loads((tmp_path / "run" / "config.json").read_text())["log"]["profile"]
    assert runs.outcome_of(tmp_path / "run") == runs.outcome_of(finished)


@pytest.mark.parametrize(("count", "traced"), [(1, 0), (2, 1), (4, 3), (10, 3)])
def test_the_trace_skips_the_items_that_compile_if_it_can(count, traced, tmp_path):
    def items():
        for number in range(count):
            with jax.profiler.TraceAnnotation(f"item {number}"):
                time.sleep(0.001)
            yield number

    assert list(Watch(traces=tmp_path).traced("student", items(), count)) == list(range(count))
    assert traced_events(tmp_path) & {f"item {number}" for number in range(count)} == {f"item {traced}"}


def test_a_trace_of_a_long_item_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_TRACE_SECONDS", 0.2)

    def items():
        for name in ("early", "late"):
            with jax.profiler.TraceAnnotation(name):
                time.sleep(0.01)
            time.sleep(0.5)
        yield 7

    assert list(Watch(traces=tmp_path).traced("student", items(), 1)) == [7]
    names = traced_events(tmp_path)
    assert "early" in names
    assert "late" not in names


def test_no_trace_is_written_of_nothing_and_by_other_processes(tmp_path, monkeypatch):
    assert list(Watch(traces=tmp_path / "a").traced("student", [], 0)) == []
    monkeypatch.setattr("cake_jax.parallel.is_first", lambda: False)
    assert list(Watch(traces=tmp_path / "b").traced("student", [1], 1)) == [1]
    assert not any(tmp_path.iterdir())
