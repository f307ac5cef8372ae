"""An `Endpoint` and a real local server, which loses requests, hangs, and stops."""

import collections
import contextlib
import io
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from cake_errors import message_of
from http_server import LOST, Memory, Server, logits, npy

import cake_jax
from cake_jax.black_box import BlackBox, Endpoint, Ledger, QuerySettings, Unanswered, black_box
from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 3, mean=(0.5,), std=(0.5,), low=0.0, high=1.0)
# Subprocesses import the same package as this process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cake_jax.__file__).parents[1]), *sys.path])}
CLIENT = """
import sys
import numpy as np
from cake_jax.black_box import BlackBox, Endpoint, QuerySettings
from cake_jax.types import DataSpec
spec = DataSpec((2,), 3, mean=(0.5,), std=(0.5,), low=0.0, high=1.0)
url, ledger = sys.argv[1:]
BlackBox(Endpoint(url), spec, QuerySettings("logits", 100, max_rows=10), ledger).predict(np.load(ledger + ".npy"))
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(count, 2)).astype(np.float32)


def expected(x):
    """The server's logits of normalised inputs."""
    return logits(SPEC.denormalize(x))


@contextlib.contextmanager
def connected(server, ledger=None, answers="logits", budget=1000, tries=6, body="json", timeout=20.0, **options):
    """A black box behind the address of a server."""
    endpoint = Endpoint(server.url, body, timeout=timeout, **options)
    settings = QuerySettings(answers, budget, max_rows=10, tries=tries, first_wait=0.001)
    with contextlib.closing(BlackBox(endpoint, SPEC, settings, ledger)) as teacher:
        yield teacher


@pytest.mark.parametrize("body", ["json", "npy"])
def test_server_answers_with_logits(body):
    x = inputs(25)
    headers = {"Authorization": "secret", "Idempotency-Key": "mine"}
    with Server() as server, connected(server, body=body, headers=headers) as teacher:
        np.testing.assert_array_equal(teacher.predict(x), expected(x))
    assert [len(rows) for rows in server.memory.charged.values()] == [10, 10, 5]
    assert len(set(server.memory.keys)) == 3
    assert "mine" not in server.memory.keys
    assert {headers["Authorization"] for headers in server.headers} == {"secret"}


@pytest.mark.parametrize(("headers", "sent"), [({"Authorization": "secret"}, "secret"), ({}, "Basic YTpi")])
def test_netrc_does_not_replace_the_authorization_of_the_user(headers, sent, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Server() as server, connected(server, headers=headers) as teacher:
        teacher.predict(inputs(5))
    assert [headers["Authorization"] for headers in server.headers] == [sent]


@pytest.mark.parametrize("body", ["json", "npy"])
def test_server_answers_with_labels(body):
    server = Server(answer=lambda x: (x[:, 0] > 0.5).astype(np.int64))
    with server, connected(server, body=body, answers="labels") as teacher:
        np.testing.assert_array_equal(teacher.predict(inputs(5)).argmax(-1), inputs(5)[:, 0] > 0)


def test_same_call_makes_the_same_requests():
    with Server() as server:
        for _ in range(2):
            with connected(server) as teacher:
                teacher.predict(inputs(25))
    assert server.memory.keys[:3] == server.memory.keys[3:]
    assert sum(server.memory.rows.values()) == 25


@pytest.mark.parametrize("body", ["json", "npy"])
def test_lost_requests_and_a_stopped_server_charge_nothing_twice(tmp_path, body):
    """The server loses one request in five, before or after its work. Then it stops and loses a finished answer."""
    x, memory, chance = inputs(400), Memory(), random.Random(1)
    losses = collections.Counter()

    def first(number, memory):
        if number >= 20:
            return "dropped when done"
        if chance.random() < 0.2:
            losses[loss := LOST[sum(losses.values()) % len(LOST)]] += 1
            return loss

    def later(number, memory):
        return LOST[number % len(LOST)] if chance.random() < 0.2 else None

    with Server(memory, first) as server, connected(server, tmp_path / "ledger", body=body, timeout=0.3) as teacher:
        assert "run again to go on" in message_of(teacher.predict, x)
        reserved = teacher.queries
    with Server(memory) as stopped:
        pass
    with connected(stopped, tmp_path / "ledger", body=body, tries=2) as teacher:
        assert "run again to go on" in message_of(teacher.predict, x)
        assert teacher.queries == reserved, "the pending request comes first"
    with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
        known, _ = ledger.answered()
        (pending,) = ledger.pending()
    before = list(memory.keys)
    assert 0 < len(known) < reserved < len(x)
    assert before[-1] == pending.key
    assert pending.key in memory.charged, "the work was done, and the answer was lost"

    server, options = Server(memory, later), {"budget": 400, "body": body, "timeout": 0.3}
    with server, connected(server, tmp_path / "ledger", **options) as teacher:
        np.testing.assert_array_equal(teacher.predict(x), expected(x))
        assert teacher.queries == 400
        num_requests = len(memory.keys)
        np.testing.assert_array_equal(teacher.predict(x[::-1]), expected(x[::-1]))
        assert "budget of 400" in message_of(teacher.predict, inputs(1, seed=1))
    after = memory.keys[len(before) :]
    assert len(memory.keys) == num_requests
    assert set(before) & set(after) == {pending.key}
    assert after[0] == pending.key
    assert not memory.conflicts
    assert len(memory.rows) == sum(memory.rows.values()) == 400
    rows_after = {row for key in after for row in memory.charged[key]}
    assert not {SPEC.denormalize(row).tobytes() for row in known} & rows_after
    assert len(losses) > 2, losses
    assert len(after) > 41 - len(set(before)), "no request was lost after the restart"


def test_client_killed_before_an_answer_continues(tmp_path):
    x, ledger = inputs(35), tmp_path / "ledger"
    np.save(tmp_path / "ledger.npy", x)

    def kill(number, memory):
        if number == 3:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return "dropped when done"

    with Server(failure=kill) as server:
        process = subprocess.Popen([sys.executable, "-c", CLIENT, server.url, str(ledger)], env=ENVIRONMENT)
        assert process.wait(60) == -signal.SIGKILL
        with contextlib.closing(Ledger(ledger)) as left:
            assert (left.num_rows, left.num_answered) == (30, 20)
            assert [request.key for request in left.pending()] == server.memory.keys[2:]
        with connected(server, ledger, budget=35) as teacher:
            np.testing.assert_array_equal(teacher.predict(x), expected(x))
    memory = server.memory
    assert len(memory.keys) == 5
    assert memory.keys[2] == memory.keys[3]
    assert sum(memory.rows.values()) == 35


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_temporary_status_is_retried(status):
    def fail_twice(number, memory):
        return (status, b"") if number < 3 else None

    with Server(failure=fail_twice) as server, connected(server) as teacher:
        np.testing.assert_array_equal(teacher.predict(inputs(5)), expected(inputs(5)))
    assert len(server.memory.keys) == 3
    assert len(set(server.memory.keys)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 302, 304])
def test_other_status_is_not_retried(status):
    refusal = (status, b"no \x1b[31m\nbecause", [("Location", "http://127.0.0.1:1/")])
    with Server(failure=lambda *_: refusal) as server, connected(server) as teacher:
        message = message_of(teacher.predict, inputs(5))
    assert str(status) in message
    assert message.isprintable()
    assert ("because" in message) == (status != 304)
    assert len(server.memory.keys) == 1


def test_call_fails_after_the_last_try():
    with Server(failure=lambda *_: (503, b"")) as server, connected(server, tries=4) as teacher:
        message = message_of(teacher.predict, inputs(15))
        assert teacher.queries == 10
    assert "4 tries" in message
    assert "503" in message
    assert len(server.memory.keys) == 4


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("Sun, 09 Sep 2001 01:56:40 GMT", 600), ("?", 0)],
    ids=["seconds", "date", "unreadable"],
)
def test_retry_after_is_read(header, seconds, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # 2001-09-09 01:46:40
    busy = (429, b"", [("Retry-After", header)])
    with Server(failure=lambda *_: busy) as server, pytest.raises(Unanswered) as caught:
        Endpoint(server.url).ask(inputs(1), "key")
    assert caught.value.after == seconds


def test_retry_after_is_waited_for(monkeypatch):
    slept = []
    monkeypatch.setattr(black_box, "time", types.SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))

    def busy_once(number, memory):
        return (503, b"", [("Retry-After", "7")]) if number == 1 else None

    with Server(failure=busy_once) as server, connected(server) as teacher:
        teacher.predict(inputs(5))
    assert 7 in slept


def test_hanging_server_times_out():
    with Server(failure=lambda *_: "hangs when done") as server, connected(server, timeout=0.1, tries=2) as teacher:
        assert "Timeout" in message_of(teacher.predict, inputs(5))
    assert len(server.memory.keys) == 2


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled_array(path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([MakesFolder(path)], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("pickled", "load"),
    [
        (pickled_array, lambda content: np.load(io.BytesIO(content), allow_pickle=True)),
        (lambda path: pickle.dumps(MakesFolder(path)), pickle.loads),
    ],
    ids=["in an array", "bare"],
)
def test_answers_are_never_unpickled(tmp_path, pickled, load):
    content = pickled(tmp_path / "ran")
    with Server(answer=lambda x: content) as server, connected(server, body="npy") as teacher:
        assert "NumPy's format" in message_of(teacher.predict, inputs(1))
    assert not (tmp_path / "ran").exists()
    assert len(server.memory.keys) == 1
    load(content)
    assert (tmp_path / "ran").exists(), "unpickling the answer does run code"


def zipped():
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros((5, 3)))
    return buffer.getvalue()


def huge():
    """An array whose header claims more than any memory holds."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**14, 3)})
    return buffer.getvalue() + b"0" * 60


@pytest.mark.parametrize(
    ("body", "answer", "part"),
    [
        ("json", b"", "JSON"),
        ("json", b"<html>", "JSON"),
        ("json", b'{"outputs": [[1, 2', "JSON"),
        ("json", b'{"output": []}', "outputs"),
        ("json", b"[1]", "outputs"),
        ("json", b"[" * 100_000, "JSON"),
        ("json", b'{"outputs": "many"}', "(5, 3)"),
        ("json", b'{"outputs": [[NaN, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]}', "not finite"),
        ("json", b'{"outputs": [[0, 0, 0]]}', "(1, 3)"),
        ("json", b'{"outputs": [' + b"[0, 0, 0]," * 6 + b"[0, 0, 0]]}", "(7, 3)"),
        ("json", b'{"outputs": [[0, 0, 0], [0]]}', "array"),
        ("npy", b"", "NumPy"),
        ("npy", npy(np.zeros((5, 3)))[:-1], "NumPy"),
        ("npy", huge(), "NumPy"),
        ("npy", zipped(), "NumPy"),
        ("npy", npy(np.zeros((4, 3))), "(4, 3)"),
        ("npy", npy(np.full((5, 3), np.nan)), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_unreadable_answers_are_refused(body, answer, part):
    with Server(answer=lambda x: answer) as server, connected(server, body=body) as teacher:
        assert part in message_of(teacher.predict, inputs(5))
    assert len(server.memory.keys) == 1


def test_answer_above_the_limit_is_refused():
    answer = b'{"outputs": [], "more": "' + b"x" * 2**20 + b'"}'
    with Server(answer=lambda x: answer) as server, connected(server, max_bytes=2**20) as teacher:
        assert "max_bytes" in message_of(teacher.predict, inputs(5))


def test_messages_and_ledger_hold_no_secrets(tmp_path):
    with Server(failure=lambda *_: (403, b"")) as server:
        url = server.url.replace("127", "user:word@127") + "?token=word"
        endpoint = Endpoint(url, headers={"Authorization": "word"})
        settings = QuerySettings("logits", 10, tries=1)
        with contextlib.closing(BlackBox(endpoint, SPEC, settings, tmp_path / "ledger")) as teacher:
            messages = [message_of(teacher.predict, inputs(5))]
            server.__exit__()
            messages.append(message_of(teacher.predict, inputs(5)))
    for message in (*messages, repr(endpoint)):
        assert "word" not in message
    assert all("127.0.0.1/classify" in message for message in messages)
    assert b"word" not in (tmp_path / "ledger").read_bytes()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"url": "ftp://127.0.0.1/"}, "Endpoint.url: "),
        ({"url": "127.0.0.1:80"}, "Endpoint.url: "),
        ({"url": "http://"}, "Endpoint.url: "),
        ({"url": "http://127.0.0.1/", "body": "pickle"}, "Endpoint.body: 'pickle' is not one of"),
        ({"url": "http://127.0.0.1/", "timeout": 0}, "Endpoint.timeout: "),
        ({"url": "http://127.0.0.1/", "max_bytes": 0}, "Endpoint.max_bytes: "),
    ],
)
def test_invalid_fields_are_refused(fields, part):
    assert part in message_of(Endpoint, **fields)


def test_invalid_headers_are_refused():
    with Server() as server, connected(server, headers={"X-Key": "a\r\nb"}) as teacher:
        assert "InvalidHeader" in message_of(teacher.predict, inputs(1))
    assert server.memory.keys == []
