"""The sample store: round trips, selection, and its content after kills, full disks and damage."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cake_jax
from cake_jax.export import export
from cake_jax.stores.samples import INDEX, SampleStore
from cake_jax.types import CakeError, SampleBatch

# Subprocesses import the same package as this process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cake_jax.__file__).parents[1])}
FIELDS = ("x", "logits", "target", "step_size", "set_index")
APPEND_FOREVER = """
import sys
import numpy as np
from cake_jax.stores.samples import SampleStore
from cake_jax.types import SampleBatch
store = SampleStore(sys.argv[1])
for batch in range(5000):
    number = np.full(50, batch, np.int32)
    x = np.full((50, 6, 6, 1), batch, np.float32)
    store.append(batch, SampleBatch(x, np.zeros((50, 3), np.float32), number, np.ones(50, np.float32), number))
"""


def samples(seed, step_size=0.5, count=4):
    rng = np.random.default_rng(seed)
    return SampleBatch(
        x=rng.normal(size=(count, 2)).astype(np.float32),
        logits=rng.normal(size=(count, 3)).astype(np.float32),
        target=rng.integers(0, 3, count).astype(np.int32),
        step_size=np.full(count, step_size, np.float32),
        set_index=np.arange(seed, seed + count, dtype=np.int32),
    )


def assert_same(got, *batches):
    """`got` has the samples of the batches, in this order and with their types."""
    for name in FIELDS:
        wanted = np.concatenate([getattr(batch, name) for batch in batches])
        np.testing.assert_array_equal(getattr(got, name), wanted)
        assert getattr(got, name).dtype == wanted.dtype


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def files_no_longer_than(size):
    """No file can grow beyond `size` bytes. A write stops half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def store(tmp_path):
    """Three mini-batches, with step sizes 0.5, 0.25 and 0.125."""
    store = SampleStore(tmp_path / "samples")
    for batch in range(3):
        store.append(batch, samples(batch, 0.5**batch / 2), queries={"forward": 10, "gradient": batch}, note="n")
    return store


def shard(store, batch):
    return store.folder / store.entries[batch]["file"]


def test_store_round_trip(store):
    reopened = SampleStore(store.folder)
    assert reopened.entries == store.entries
    for each in (store, reopened):
        assert each.count == 12
        assert each.totals() == {"forward": 30, "gradient": 3}
        for batch in range(3):
            assert_same(each.read(batch), samples(batch, 0.5**batch / 2))
        assert_same(each.select(), *(samples(batch, 0.5**batch / 2) for batch in range(3)))


def test_entries_describe_their_shards(store):
    entry = SampleStore(store.folder).entries[1]
    facts = {name: entry[name] for name in ("count", "shape", "num_classes", "dtype", "step_size", "note")}
    assert facts == {"count": 4, "shape": [2], "num_classes": 3, "dtype": "float32", "step_size": 0.25, "note": "n"}


def test_new_store_is_empty_and_makes_no_file(tmp_path):
    store = SampleStore(tmp_path / "samples")
    assert (store.count, store.entries, store.totals()) == (0, {}, {"forward": 0, "gradient": 0})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [0, 1, 2]),
        ({"min_step_size": 0.25}, [0, 1]),
        ({"max_step_size": 0.25}, [1, 2]),
        ({"min_step_size": 0.25, "max_step_size": 0.25}, [1]),
        ({"min_step_size": 0.13, "max_step_size": 1.0}, [0, 1]),
    ],
)
def test_select_keeps_a_closed_range_of_step_sizes(store, limits, kept):
    assert_same(store.select(**limits), *(samples(batch, 0.5**batch / 2) for batch in kept))


@pytest.mark.parametrize("step_size", [0.1, 0.7])  # float32 rounds 0.1 up and 0.7 down
def test_select_includes_limits_that_float32_rounds(tmp_path, step_size):
    store = SampleStore(tmp_path)
    store.append(0, samples(0, step_size))
    assert_same(store.select(min_step_size=step_size, max_step_size=step_size), samples(0, step_size))


def test_select_without_a_match_is_refused(store, tmp_path):
    with pytest.raises(CakeError, match=r"0\.6"):
        store.select(min_step_size=0.6)
    with pytest.raises(CakeError, match="empty"):
        SampleStore(tmp_path / "empty").select()


def test_append_of_an_existing_mini_batch_is_refused(store):
    with pytest.raises(CakeError, match="mini-batch 1"):
        store.append(1, samples(9))
    for each in (store, SampleStore(store.folder)):
        assert_same(each.read(1), samples(1, 0.25))
        assert each.count == 12


@pytest.mark.parametrize("limit", [0, 10**9])
def test_select_beyond_the_memory_limit_maps_a_file(store, limit):
    before = sorted(store.folder.iterdir())
    selected = store.select(memory_limit=limit)
    assert all(isinstance(field, np.memmap) == (limit == 0) for field in selected)
    assert_same(selected, *(samples(batch, 0.5**batch / 2) for batch in range(3)))
    assert sorted(store.folder.iterdir()) == before


def test_two_open_stores_share_one_index(tmp_path):
    one, other = SampleStore(tmp_path), SampleStore(tmp_path)
    one.append(1, samples(1))
    other.append(0, samples(0))
    one.append(2, samples(2))
    assert list(SampleStore(tmp_path).entries) == [0, 1, 2]
    assert_same(SampleStore(tmp_path).select(), samples(0), samples(1), samples(2))


def test_dropping_a_mini_batch_keeps_those_of_another_store(tmp_path):
    one, other = SampleStore(tmp_path), SampleStore(tmp_path)
    other.append(0, samples(0))
    for batch in (1, 2):
        one.append(batch, samples(batch))
    one.keep(lambda batch: batch != 2)
    assert list(one.entries) == list(SampleStore(tmp_path).entries) == [0, 1]


def test_an_append_writes_its_own_line_alone(tmp_path):
    store = SampleStore(tmp_path)
    store.append(1, samples(1))
    first, inode = (tmp_path / INDEX).read_bytes(), (tmp_path / INDEX).stat().st_ino
    store.append(0, samples(0))
    assert (tmp_path / INDEX).read_bytes().startswith(first)
    assert (tmp_path / INDEX).stat().st_ino == inode


def test_samples_are_in_the_order_of_mini_batch_numbers(tmp_path):
    store = SampleStore(tmp_path)
    for batch in (2, 0, 1):
        store.append(batch, samples(batch))
    for each in (SampleStore(tmp_path), store):
        assert list(each.entries) == [0, 1, 2]
        assert_same(each.select(), samples(0), samples(1), samples(2))


def test_torn_last_line_of_the_index_is_ignored(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of calls take seconds
    index = store.folder / INDEX
    whole = index.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    prefix = {batch: store.entries[batch] for batch in (0, 1)}
    for cut in range(start, len(whole)):
        index.write_bytes(whole[:cut])
        torn = SampleStore(store.folder)
        assert torn.entries == prefix, cut
        torn.append(2, samples(2, 0.125), queries={"forward": 10, "gradient": 2}, note="n")
        assert SampleStore(store.folder).entries == store.entries, cut
    assert_same(SampleStore(store.folder).read(2), samples(2, 0.125))


@pytest.mark.parametrize("where", [0.0, 0.5, 0.9999])
def test_damaged_shard_is_refused(store, where):
    path = shard(store, 1)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0xFF
    path.write_bytes(content)
    for each in (store, SampleStore(store.folder)):
        with pytest.raises(CakeError) as caught:
            each.read(1)
        assert str(path) in str(caught.value)
        with pytest.raises(CakeError, match=path.name):
            each.select()
        assert_same(each.read(2), samples(2, 0.125))


def test_mini_batch_of_a_deleted_shard_can_be_made_again(store):
    shard(store, 1).unlink()
    reopened = SampleStore(store.folder)
    assert list(reopened.entries) == [0, 2]
    assert_same(reopened.select(), samples(0, 0.5), samples(2, 0.125))
    reopened.append(1, samples(7, 2.0))
    for each in (reopened, SampleStore(store.folder)):
        assert each.count == 12
        assert_same(each.read(1), samples(7, 2.0))
        assert_same(each.select(), samples(0, 0.5), samples(7, 2.0), samples(2, 0.125))
        assert_same(each.select(min_step_size=1.0), samples(7, 2.0))


def test_shard_deleted_under_an_open_store_is_refused(store):
    path = shard(store, 1)
    path.unlink()
    with pytest.raises(CakeError, match=path.name):
        store.read(1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: b"",
        lambda line: b"7",
        lambda line: b'{"batch": 1}',
        lambda line: b"\0" * len(line),
        lambda line: bytes(byte ^ 0xFF for byte in line),
    ],
    ids=["half", "empty", "number", "without its file", "zeros", "flipped"],
)
def test_damaged_line_of_the_index_is_refused(store, damage):
    index = store.folder / INDEX
    lines = index.read_bytes().splitlines()
    index.write_bytes(b"\n".join([lines[0], damage(lines[1]), lines[2], b""]))
    with pytest.raises(CakeError) as caught:
        SampleStore(store.folder)
    assert str(index) in str(caught.value)
    assert "line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_leftover_temporary_files_are_harmless(store):
    for name in ("batch-000001.npz.tmp", "batch-000003.npz.tmp", INDEX + ".tmp"):
        (store.folder / name).write_bytes(b"half")
    reopened = SampleStore(store.folder)
    assert reopened.entries == store.entries
    reopened.append(3, samples(3))
    assert_same(SampleStore(store.folder).read(3), samples(3))


@pytest.mark.parametrize(("call", "number"), [("fsync", 1), ("replace", 1), ("fsync", 2)])
def test_failed_append_leaves_the_store_unchanged(store, monkeypatch, call, number):
    calls, entries, real = [], dict(store.entries), getattr(os, call)

    def fail_once(*arguments):
        calls.append(arguments)
        return no_space() if len(calls) == number else real(*arguments)

    monkeypatch.setattr(os, call, fail_once)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        store.append(3, samples(3))
    assert store.entries == entries
    assert SampleStore(store.folder).entries == entries
    store.append(3, samples(33))
    assert_same(SampleStore(store.folder).read(3), samples(33))


def test_disk_full_during_an_append_keeps_the_entries(tmp_path):
    store = SampleStore(tmp_path)
    store.append(0, samples(0), note="long" * 2500)  # makes the index longer than a shard
    limit = (tmp_path / INDEX).stat().st_size + 50
    with files_no_longer_than(limit), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        store.append(1, samples(1))
    assert list(store.entries) == list(SampleStore(tmp_path).entries) == [0]


def test_append_works_after_the_disk_was_full(tmp_path):
    store = SampleStore(tmp_path)
    store.append(0, samples(0), note="long" * 2500)
    limit = (tmp_path / INDEX).stat().st_size + 50
    with files_no_longer_than(limit), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        store.append(1, samples(1))
    store.append(1, samples(1))
    assert_same(SampleStore(tmp_path).select(), samples(0), samples(1))


def test_torn_index_on_a_full_disk_keeps_the_entries(store):
    with open(store.folder / INDEX, "ab") as index:
        index.write(b'{"batch": 3, "fi')
    with files_no_longer_than(10), contextlib.suppress(OSError):
        SampleStore(store.folder)
    assert SampleStore(store.folder).entries == store.entries


def test_export_joins_all_samples(store, tmp_path):
    assert export(store.folder, tmp_path / "all.npz") == 12
    with np.load(tmp_path / "all.npz", allow_pickle=False) as content:
        assert sorted(content) == sorted(FIELDS)
        assert_same(SampleBatch(**content), *(samples(batch, 0.5**batch / 2) for batch in range(3)))


def test_export_refuses_a_damaged_or_missing_store(store, tmp_path):
    shard(store, 1).write_bytes(b"not what was written")
    with pytest.raises(CakeError, match=shard(store, 1).name):
        export(store.folder, tmp_path / "all.npz")
    with pytest.raises(CakeError, match="nowhere"):
        export(tmp_path / "nowhere", tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()


def run_module(*arguments):
    command = [sys.executable, "-m", "cake_jax.export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


def test_export_command_writes_the_file(store, tmp_path):
    done = run_module(store.folder, tmp_path / "all.npz")
    assert done.returncode == 0
    assert "12" in done.stdout
    assert "all.npz" in done.stdout
    with np.load(tmp_path / "all.npz", allow_pickle=False) as content:
        assert_same(SampleBatch(**content), *(samples(batch, 0.5**batch / 2) for batch in range(3)))


def test_export_command_without_a_store_prints_one_error_line(tmp_path):
    done = run_module(tmp_path / "nowhere", tmp_path / "all.npz")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "nowhere" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "all.npz").exists()


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.037])
def test_store_of_a_killed_process_is_readable(tmp_path, delay):
    process = subprocess.Popen([sys.executable, "-c", APPEND_FOREVER, str(tmp_path / "samples")], env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "samples" / INDEX).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        assert process.poll() is None, "the process ended before it was killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = SampleStore(tmp_path / "samples")
    assert list(store.entries) == list(range(len(store.entries)))
    for batch in store.entries:
        assert (store.read(batch).x == batch).all()
    following = len(store.entries)
    store.append(following, samples(0))
    assert list(SampleStore(tmp_path / "samples").entries) == list(range(following + 1))
