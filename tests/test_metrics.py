"""The metrics log: appended by whole lines, read back, and cut back to what the disk holds."""

import pytest

from cake_jax.metrics import MetricsLog

ROWS = [
    {"stage": "teacher", "step": 1, "loss": 0.1, "seconds": 1.5},
    {"stage": "teacher", "step": 2, "loss": None, "seconds": 0.25},
    {"stage": "synthesis", "step": 0, "note": 'a "b"\nc', "list": [1, 2]},
    {"stage": "student", "step": 1, "loss": 1e-9, "seconds": 4.0},
]


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for row in ROWS:
        log.write(**row)
    return log


def test_write_and_read(log):
    for each in (log, MetricsLog(str(log.path))):
        assert each.read() == ROWS
        assert each.read("teacher") == ROWS[:2]
        assert each.read("synthesis") == [ROWS[2]]
        assert each.read("evaluation") == []
    assert log.path.read_text().count("\n") == len(ROWS)


def test_without_a_file(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.keep("teacher", lambda step: True)
    assert (log.read(), log.read("teacher"), log.seconds("teacher")) == ([], [], 0)
    assert not any(tmp_path.iterdir())


def test_seconds(log):
    assert [log.seconds(stage) for stage in ("teacher", "synthesis", "student")] == [1.75, 0, 4.0]


@pytest.mark.parametrize(
    ("stage", "wanted", "kept"),
    [
        ("teacher", lambda step: step <= 1, [0, 2, 3]),
        ("teacher", lambda step: False, [2, 3]),
        ("synthesis", lambda step: step in {1, 2}, [0, 1, 3]),
        ("student", lambda step: True, [0, 1, 2, 3]),
    ],
)
def test_keep(log, stage, wanted, kept):
    log.keep(stage, wanted)
    assert log.read() == [ROWS[row] for row in kept]
    log.write(stage="teacher", step=7)
    assert log.read()[-1] == {"stage": "teacher", "step": 7}
    assert [path.name for path in log.path.parent.iterdir()] == [log.path.name]


def test_torn_last_line_is_not_read_and_keep_cuts_it(log):
    whole = log.path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        log.path.write_bytes(whole[:cut])
        assert log.read() == ROWS[:3], cut
        assert log.seconds("student") == 0
        log.keep("teacher", lambda step: True)
        assert log.path.read_bytes().endswith(b"\n"), cut
        log.write(**ROWS[3])
        assert log.read() == ROWS, cut


def test_keep_that_fails_loses_nothing(log, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="No space"):
        log.keep("teacher", lambda step: False)
    assert log.read() == ROWS
