"""The ledger of queries: its content, also after a kill, and the damage that it detects."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cake_errors import message_of

import cake_jax
from cake_jax import export
from cake_jax.black_box.answer_kinds import LABEL_LOGIT
from cake_jax.black_box.ledger import Ledger, Terms, digests
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((3,), 4, mean=(0.5,), std=(0.25,), low=0.0, high=1.0)
TERMS = Terms(SPEC, "scores")
# Subprocesses import the same package as this process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cake_jax.__file__).parents[1]), *sys.path])}
RECORD_FOREVER = """
import sys
import numpy as np
from cake_jax.black_box.ledger import Ledger, Terms
from cake_jax.types import DataSpec
ledger = Ledger(sys.argv[1], Terms(DataSpec((3,), 4), "logits"))
for number in range(100_000):
    request = ledger.reserve(np.float32([[number, 0, 0], [number, 1, 0]]))
    print("reserved", number, flush=True)
    ledger.record(request, np.full((2, 4), number, np.float32))
    print("recorded", number, flush=True)
"""


def inputs(seed, count=5):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def scores(x):
    return np.exp(x[:, :1] * np.arange(4, dtype=np.float32)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    """The file of a ledger with three requests of five rows. The second request has no answers."""
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite", TERMS)) as ledger:
        for seed in range(3):
            request = ledger.reserve(inputs(seed))
            if seed != 1:
                ledger.record(request, scores(request.x))
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def opened(path):
    with contextlib.closing(Ledger(path, TERMS)) as ledger:
        yield ledger


def read_all(path):
    """Everything that a ledger holds."""
    with contextlib.closing(Ledger(path)) as ledger:
        return (*ledger.answered(), ledger.pending(), ledger.terms)


def test_recorded_rows_are_read_back(opened):
    assert (opened.num_rows, opened.num_answered) == (15, 10)
    x, answers = opened.answered()
    np.testing.assert_array_equal(x, np.concatenate([inputs(0), inputs(2)]))
    np.testing.assert_array_equal(answers, scores(x))
    assert x.dtype == answers.dtype == np.float32


def test_find_tells_answered_pending_and_new_rows_apart(opened):
    answered, pending, new = digests(inputs(0)), digests(inputs(1)), digests(inputs(9))
    found = opened.find([*answered, *pending, *new])
    assert found.keys() == {*answered, *pending}
    np.testing.assert_array_equal([found[digest] for digest in answered], scores(inputs(0)))
    assert [found[digest] for digest in pending] == [None] * 5


def test_pending_request_is_unchanged(opened):
    (request,) = opened.pending()
    np.testing.assert_array_equal(request.x, inputs(1))
    assert request.key == opened.reserve(inputs(1)).key
    opened.record(request, scores(request.x))
    assert opened.pending() == []
    assert opened.num_answered == 15


def test_second_reservation_changes_nothing(opened):
    for seed in (0, 1):
        opened.reserve(inputs(seed))
    assert opened.num_rows == 15
    assert opened.num_answered == 10


def test_row_belongs_to_one_request(opened):
    assert opened.name in message_of(opened.reserve, np.concatenate([inputs(9), inputs(1)[:1]]))
    assert opened.num_rows == 15
    assert len(opened.pending()) == 1


def test_first_answers_are_kept(opened):
    request = opened.reserve(inputs(0))
    opened.record(request, np.zeros((5, 4), np.float32))
    np.testing.assert_array_equal(opened.answered()[1][:5], scores(inputs(0)))


def test_key_depends_on_rows_order_and_terms():
    def key(x, terms=TERMS):
        with contextlib.closing(Ledger(None, terms)) as ledger:
            return ledger.reserve(x).key

    x = inputs(0)
    assert key(x) == key(x.copy(order="F"))
    others = {
        key(x[::-1]),
        key(x[:4]),
        key(np.nextafter(x, np.float32(9))),
        key(x, Terms(SPEC, "logits")),
        key(x, Terms(SPEC, "scores", pixels=False)),
    }
    assert len(others) == 5
    assert key(x) not in others


def test_labels_are_read_back():
    with contextlib.closing(Ledger(None, Terms(SPEC, "labels"))) as ledger:
        ledger.record(ledger.reserve(inputs(0)), np.array([3, 0, 1, 2, 3]))
        assert ledger.answered()[1].tolist() == [3, 0, 1, 2, 3]
        assert ledger.find(digests(inputs(0)[:1])) == {digests(inputs(0))[0]: 3}


@pytest.mark.parametrize(
    ("terms", "parts"),
    [
        (Terms(SPEC, "logits"), ("answers", "scores", "logits")),
        (Terms(SPEC, "scores", pixels=False), ("pixels",)),
        (Terms(DataSpec((3,), 4, mean=(0.5,), std=(0.2,), low=0.0, high=1.0), "scores"), ("std", 0.25, 0.2)),
        (Terms(DataSpec((2,), 4), "scores"), ("shape", "(3,)", "(2,)")),
    ],
)
def test_other_terms_are_refused(path, terms, parts):
    message = message_of(Ledger, path, terms)
    for part in (path, *parts):
        assert str(part) in message
    Ledger(path, TERMS).close()


def test_unknown_kind_of_answers_is_refused():
    assert "'guesses' is not one of labels, scores, logits" in message_of(Terms, SPEC, "guesses")


def test_one_process_at_a_time(path, opened):
    assert f"{path}: another process" in message_of(Ledger, path, TERMS)
    code = f"import sqlite3\nsqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM rows')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "database is locked" in done.stderr, done.stderr
    opened.close()
    Ledger(path).close()


def other_database(path):
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE rows (x)")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database, and long enough to be one" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096]),
        lambda path: os.truncate(path, 0),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        other_database,
    ],
    ids=["text", "cut", "cut between pages", "empty", "missing", "folder", "of something else"],
)
def test_other_files_are_refused(path, spoil, tmp_path):
    spoil(path)
    call = (Ledger, path) if path.is_dir() else (export.main, str(path), str(tmp_path / "queries.npz"))
    assert str(path) in message_of(*call)
    assert not (tmp_path / "queries.npz").exists()


def test_flipped_byte_is_detected_or_harmless(path):
    whole = path.read_bytes()
    x, answers, (pending,), _ = read_all(path)
    refusals, harmless = [], 0
    for place in range(0, len(whole), 131):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found_x, found_answers, (request,), terms = read_all(path)
        except CakeError as error:
            refusals.append(str(error))
            continue
        harmless += 1
        assert terms == TERMS, place
        np.testing.assert_array_equal(found_x, x, str(place))
        np.testing.assert_array_equal(found_answers, answers, str(place))
        np.testing.assert_array_equal(request.x, pending.x, str(place))
    assert min(len(refusals), harmless) > 5
    assert not any("\n" in message for message in refusals)


def test_wrong_index_is_detected(path):
    """With a wrong index, a row would be queried and charged again."""
    whole = path.read_bytes()
    (digest,) = digests(inputs(0)[:1])
    assert whole.count(digest) == 2
    for place in (whole.index(digest), whole.rindex(digest)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CakeError, match="damaged"):
            Ledger(path)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE rows SET request = 1 WHERE number = 6", Ledger.pending),
        ("UPDATE rows SET x = zeroblob(12) WHERE number = 6", Ledger.pending),
        ("UPDATE rows SET x = zeroblob(12) WHERE number = 1", Ledger.answered),
        ("UPDATE rows SET answer = zeroblob(16) WHERE number = 1", Ledger.answered),
        ("UPDATE rows SET answer = zeroblob(16) WHERE number = 1", lambda ledger: ledger.find(digests(inputs(0)))),
        ("UPDATE terms SET json = replace(json, '0.25', '0.26')", Ledger.pending),
    ],
)
def test_wrong_value_is_detected(path, change, read):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(change).rowcount == 1

    def open_and_read():
        with contextlib.closing(Ledger(path)) as ledger:
            read(ledger)

    assert f"{path}: damaged" in message_of(open_and_read)


@pytest.mark.parametrize("change", ["DROP INDEX pending", "ALTER TABLE rows ADD COLUMN more", "CREATE TABLE more (x)"])
def test_other_tables_are_refused(path, change):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    message = message_of(Ledger, path, TERMS)
    assert str(path) in message
    assert "version" in message


def test_full_disk_reserves_nothing(path, monkeypatch):
    connect = sqlite3.connect

    def connect_without_room(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # the file cannot grow
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_without_room)
        with contextlib.closing(Ledger(path, TERMS)) as ledger:
            message = message_of(ledger.reserve, inputs(3, 2000))
            assert str(path) in message
            assert "full" in message
            assert (ledger.num_rows, len(ledger.pending())) == (15, 1)
    with contextlib.closing(Ledger(path, TERMS)) as ledger:
        assert ledger.num_rows == 15


def test_killed_process_loses_no_recorded_row(tmp_path):
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", RECORD_FOREVER, str(path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        while "recorded 5" not in lines:
            lines.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    with contextlib.closing(Ledger(path)) as ledger:
        x, answers = ledger.answered()
        recorded = sum(line.startswith("recorded") for line in lines)
        reserved = sum(line.startswith("reserved") for line in lines)
        assert recorded <= len(x) / 2 <= reserved
        assert reserved <= ledger.num_rows / 2 <= reserved + 1
        np.testing.assert_array_equal(x[:, 0], np.arange(len(x)) // 2)
        np.testing.assert_array_equal(answers, np.repeat(x[:, :1], 4, axis=1))
        assert sum(len(request.x) for request in ledger.pending()) == ledger.num_rows - len(x)


def test_export_of_scores(path, tmp_path):
    assert "10 queries" in export.main(str(path), str(tmp_path / "queries.npz"))
    with np.load(tmp_path / "queries.npz", allow_pickle=False) as content:
        assert sorted(content) == ["labels", "logits", "spec", "x"]
        np.testing.assert_array_equal(content["x"], np.concatenate([inputs(0), inputs(2)]))
        np.testing.assert_allclose(content["logits"], content["x"][:, :1] * np.arange(4), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(content["labels"], np.where(content["x"][:, 0] > 0, 3, 0))
        assert content["labels"].dtype == np.int32
        assert DataSpec.from_dict(json.loads(str(content["spec"]))) == SPEC


def test_export_of_labels(tmp_path):
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite", Terms(SPEC, "labels"))) as ledger:
        ledger.record(ledger.reserve(inputs(0)), np.array([3, 0, 1, 2, 3]))
    export.export_queries(tmp_path / "ledger.sqlite", tmp_path / "queries.npz")
    with np.load(tmp_path / "queries.npz", allow_pickle=False) as content:
        assert content["labels"].tolist() == [3, 0, 1, 2, 3]
        assert (content["logits"].max(-1) == LABEL_LOGIT).all()


def test_export_to_another_ending_is_refused(path, tmp_path):
    message = message_of(export.export_queries, path, tmp_path / "queries.csv")
    assert "queries.csv: the file name must end in .npz" in message
    assert not (tmp_path / "queries.csv").exists()
