"""The metrics log, and what it passes to writers."""

import sys

import pytest

from cake_jax.stores.metrics import WRITERS, MetricsLog, check
from cake_jax.types import CakeError

ROWS = [
    {"stage": "teacher", "step": 1, "loss": 0.1, "seconds": 1.5},
    {"stage": "teacher", "step": 2, "loss": None, "seconds": 0.25},
    {"stage": "synthesis", "step": 0, "note": 'a "b"\nc', "list": [1, 2]},
    {"stage": "student", "step": 1, "loss": 1e-9, "seconds": 4.0},
]


class Recorder:
    """A writer that keeps its calls, and the log's lines at each of them."""

    def __init__(self, path):
        self.path = path
        self.calls = []

    def write(self, stage, step, values):
        lines = self.path.read_text().count("\n")
        self.calls.append((stage, step, values, lines))

    def picture(self, name, path):
        self.calls.append((name, path))

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for row in ROWS:
        log.write(**row)
    return log


def test_log_reads_back_what_was_written(log):
    for each in (log, MetricsLog(str(log.path))):
        assert each.read() == ROWS
        assert each.read("teacher") == ROWS[:2]
        assert each.read("synthesis") == [ROWS[2]]
        assert each.read("evaluation") == []
    assert log.path.read_text().count("\n") == len(ROWS)


def test_log_without_a_file_is_empty(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.keep("teacher", lambda step: True)
    assert (log.read(), log.read("teacher"), log.total("teacher", "seconds")) == ([], [], 0)
    assert not any(tmp_path.iterdir())


def test_seconds_are_summed_by_stage(log):
    assert [log.total(stage, "seconds") for stage in ("teacher", "synthesis", "student")] == [1.75, 0, 4.0]


@pytest.mark.parametrize(
    ("stage", "wanted", "kept"),
    [
        ("teacher", lambda step: step <= 1, [0, 2, 3]),
        ("teacher", lambda step: False, [2, 3]),
        ("synthesis", lambda step: step in {1, 2}, [0, 1, 3]),
        ("student", lambda step: True, [0, 1, 2, 3]),
    ],
)
def test_keep_drops_other_steps_of_the_stage(log, stage, wanted, kept):
    log.keep(stage, wanted)
    assert log.read() == [ROWS[row] for row in kept]
    log.write(stage="teacher", step=7)
    assert log.read()[-1] == {"stage": "teacher", "step": 7}
    assert not list(log.path.parent.glob("*.tmp"))


def test_torn_last_line_is_not_read_and_keep_drops_it(log):
    whole = log.path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        log.path.write_bytes(whole[:cut])
        assert log.read() == ROWS[:3], cut
        assert log.total("student", "seconds") == 0
        log.keep("teacher", lambda step: True)
        assert log.path.read_bytes().endswith(b"\n"), cut
        log.write(**ROWS[3])
        assert log.read() == ROWS, cut


def test_failed_keep_loses_nothing(log, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="No space"):
        log.keep("teacher", lambda step: False)
    assert log.read() == ROWS


def test_writers_receive_each_line_after_it_is_in_the_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writers = [Recorder(path), Recorder(path)]
    log = MetricsLog(path, writers)
    log.write("teacher", 1, loss=0.5, epoch=1)
    log.write("synthesis", 0, gap=2.0)
    log.keep("teacher", lambda step: True)
    log.picture("samples", tmp_path / "samples.png")
    log.close()
    lines = [("teacher", 1, {"loss": 0.5, "epoch": 1}, 1), ("synthesis", 0, {"gap": 2.0}, 2)]
    expected = [*lines, ("samples", tmp_path / "samples.png"), "closed"]
    assert [writer.calls for writer in writers] == [expected, expected]


def test_failing_writer_does_not_lose_the_line(tmp_path):
    class Broken(Recorder):
        def write(self, stage, step, values):
            raise OSError("unreachable")

    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, [Broken(path)])
    with pytest.raises(OSError, match="unreachable"):
        log.write("teacher", 1, loss=0.5)
    assert log.read() == [{"stage": "teacher", "step": 1, "loss": 0.5}]


def test_added_writer_is_made_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(WRITERS, "recorder", lambda folder: Recorder(folder / "metrics.jsonl"))
    writers = [WRITERS[name](tmp_path) for name in ("csv", "recorder")]
    log = MetricsLog(tmp_path / "metrics.jsonl", writers)
    log.write("teacher", 1, loss=0.5)
    log.close()
    assert writers[1].calls == [("teacher", 1, {"loss": 0.5}, 1), "closed"]
    assert (tmp_path / "metrics-teacher.csv").read_text() == "step,loss\n1,0.5\n"


def test_resumed_log_does_not_repeat_rows_of_csv_files(tmp_path):
    def opened():
        return MetricsLog(tmp_path / "metrics.jsonl", [WRITERS["csv"](tmp_path)])

    first = opened()
    for step, loss in ((1, 0.5), (2, 0.25), (3, 0.125)):
        first.write("teacher", step, loss=loss)
    resumed = opened()  # the run was killed after its checkpoint of step 2
    resumed.keep("teacher", lambda step: step <= 2)
    resumed.write("teacher", 3, loss=0.125)
    resumed.write("teacher", 4, loss=0.0625)
    resumed.close()
    assert [row["step"] for row in resumed.read()] == [1, 2, 3, 4]
    assert (tmp_path / "metrics-teacher.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n3,0.125\n4,0.0625\n"


@pytest.mark.parametrize(("name", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_library_is_named_with_its_installation(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CakeError) as caught:
        check(["csv", name])
    assert str(caught.value) == f"log.{name}: needs {library} (pip install {library})"


def test_a_writer_without_a_library_passes_the_check():
    check(["csv"])


def test_a_line_that_a_kill_has_cut_does_not_damage_the_next(log):
    with open(log.path, "a") as file:
        file.write('{"step": 7, "sta')
    log.write("student", 2, loss=0.5)
    assert log.read() == [*ROWS, {"stage": "student", "step": 2, "loss": 0.5}]
