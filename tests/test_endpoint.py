"""A teacher behind an address: a real server on this machine, which fails, hangs, and dies."""

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
from pathlib import Path

import numpy as np
import pytest
from http_server import LOST, Memory, Server, logits, npy

import cake_jax
from cake_jax.teachers import BlackBox, Endpoint, Ledger, QuerySettings, Unanswered, black_box
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((2,), 3, mean=(0.5,), std=(0.5,), low=0.0, high=1.0)
# Subprocesses import the same package as this process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cake_jax.__file__).parents[1]), *sys.path])}
ASK = """
import sys
import numpy as np
from cake_jax.teachers import BlackBox, Endpoint, QuerySettings
from cake_jax.types import DataSpec
spec = DataSpec((2,), 3, mean=(0.5,), std=(0.5,), low=0.0, high=1.0)
url, ledger = sys.argv[1:]
BlackBox(Endpoint(url), spec, QuerySettings("logits", 100, max_rows=10), ledger)(np.load(ledger + ".npy"))
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(count, 2)).astype(np.float32)


@contextlib.contextmanager
def asking(server, ledger=None, answers="logits", budget=1000, tries=6, body="json", timeout=20.0, **options):
    endpoint = Endpoint(server.url, body, timeout=timeout, **options)
    settings = QuerySettings(answers, budget, max_rows=10, tries=tries, first_wait=0.001)
    with contextlib.closing(BlackBox(endpoint, SPEC, settings, ledger)) as teacher:
        yield teacher


def message_of(call, *arguments):
    with pytest.raises(CakeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("body", ["json", "npy"])
def test_it_answers(body):
    x = inputs(25)
    headers = {"Authorization": "secret", "Idempotency-Key": "mine"}
    with Server() as server, asking(server, body=body, headers=headers) as teacher:
        np.testing.assert_array_equal(teacher(x), logits(SPEC.denormalize(x)))
        memory = server.memory
    assert [len(rows) for rows in memory.paid.values()] == [10, 10, 5]
    assert len(set(memory.keys)) == 3
    assert {headers["Authorization"] for headers in server.headers} == {"secret"}
    assert teacher.inner is None


@pytest.mark.parametrize("body", ["json", "npy"])
def test_labels(body):
    server = Server(answer=lambda x: (x[:, 0] > 0.5).astype(np.int64))
    with server, asking(server, body=body, answers="labels") as teacher:
        np.testing.assert_array_equal(teacher(inputs(5)).argmax(-1), inputs(5)[:, 0] > 0)


def test_the_same_call_makes_the_same_requests():
    with Server() as server:
        for _ in range(2):
            with asking(server) as teacher:
                teacher(inputs(25))
    assert server.memory.keys[:3] == server.memory.keys[3:]
    assert sum(server.memory.rows.values()) == 25


@pytest.mark.parametrize("body", ["json", "npy"])
def test_a_server_that_fails_hangs_and_dies(tmp_path, body):
    """One call in five is lost, before or after the work is done; then the server dies, with one answer on the way."""
    x, memory, chance = inputs(400), Memory(), random.Random(1)
    seen = collections.Counter()

    def trouble(number, memory):
        if number >= 20:
            return "dropped when done"
        if chance.random() < 0.2:
            seen[lost := LOST[sum(seen.values()) % len(LOST)]] += 1
            return lost

    def later(number, memory):
        return LOST[number % len(LOST)] if chance.random() < 0.2 else None

    with Server(memory, trouble) as server, asking(server, tmp_path / "ledger", body=body, timeout=0.3) as teacher:
        assert "run again to go on" in message_of(teacher, x)
        reserved = teacher.queries
    with Server(memory) as nobody:
        pass
    with asking(nobody, tmp_path / "ledger", body=body, tries=2) as teacher:
        assert "run again to go on" in message_of(teacher, x)
        assert teacher.queries == reserved  # what waits comes first
    with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
        known, _ = ledger.answered()
        (waiting,) = ledger.pending()
    before = list(memory.keys)
    assert 0 < len(known) < reserved < len(x)
    assert before[-1] == waiting.key
    assert waiting.key in memory.paid  # the work was done, the answer was lost

    server, options = Server(memory, later), {"budget": 400, "body": body, "timeout": 0.3}
    with server, asking(server, tmp_path / "ledger", **options) as teacher:
        np.testing.assert_array_equal(teacher(x), logits(SPEC.denormalize(x)))
        assert teacher.queries == 400
        asked = len(memory.keys)
        np.testing.assert_array_equal(teacher(x[::-1]), logits(SPEC.denormalize(x[::-1])))
        assert "budget of 400" in message_of(teacher, inputs(1, seed=1))
    after = memory.keys[len(before) :]
    assert len(memory.keys) == asked
    assert set(before) & set(after) == {waiting.key}
    assert after[0] == waiting.key
    assert not memory.strange
    assert len(memory.rows) == sum(memory.rows.values()) == 400
    answered_again = {SPEC.denormalize(row).tobytes() for row in known} & {
        row for key in after for row in memory.paid[key]
    }
    assert not answered_again
    assert len(seen) > 2, seen
    assert len(after) > 41 - len(set(before)), "none was lost after the restart"


def test_a_client_killed_between_intent_and_answer(tmp_path):
    x, ledger = inputs(35), tmp_path / "ledger"
    np.save(tmp_path / "ledger.npy", x)

    def trouble(number, memory):
        if number == 3:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return "dropped when done"

    with Server(trouble=trouble) as server:
        process = subprocess.Popen([sys.executable, "-c", ASK, server.url, str(ledger)], env=ENVIRONMENT)
        assert process.wait(60) == -signal.SIGKILL
        with contextlib.closing(Ledger(ledger)) as left:
            assert (left.num_rows, left.num_answered) == (30, 20)
            assert [request.key for request in left.pending()] == server.memory.keys[2:]
        with asking(server, ledger, budget=35) as teacher:
            np.testing.assert_array_equal(teacher(x), logits(SPEC.denormalize(x)))
    memory = server.memory
    assert len(memory.keys) == 5
    assert memory.keys[2] == memory.keys[3]
    assert sum(memory.rows.values()) == 35


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_passing_trouble(status):
    def trouble(number, memory):
        return (status, b"") if number < 3 else None

    with Server(trouble=trouble) as server, asking(server) as teacher:
        np.testing.assert_array_equal(teacher(inputs(5)), logits(SPEC.denormalize(inputs(5))))
    assert len(server.memory.keys) == 3
    assert len(set(server.memory.keys)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 302, 304])
def test_a_refusal_is_not_repeated(status):
    trouble = (status, b"no \x1b[31m\nbecause", [("Location", "http://127.0.0.1:1/")])
    with Server(trouble=lambda *_: trouble) as server, asking(server) as teacher:
        message = message_of(teacher, inputs(5))
    assert str(status) in message
    assert message.isprintable()
    assert ("because" in message) == (status != 304)
    assert len(server.memory.keys) == 1


def test_tries_end():
    with Server(trouble=lambda *_: (503, b"")) as server, asking(server, tries=4) as teacher:
        message = message_of(teacher, inputs(15))
        assert teacher.queries == 10
    assert "4 tries" in message
    assert "503" in message
    assert len(server.memory.keys) == 4


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (lambda: "7", 7, 7),
        (lambda: time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1000)), 900, 1000),
        (lambda: "?", 0, 0),
    ],
    ids=["seconds", "date", "neither"],
)
def test_retry_after(header, least, most):
    with (
        Server(trouble=lambda *_: (429, b"", [("Retry-After", header())])) as server,
        pytest.raises(Unanswered) as caught,
    ):
        Endpoint(server.url).ask(inputs(1), "key")
    assert least <= caught.value.after <= most


def test_retry_after_is_waited_for(monkeypatch):
    slept = []
    monkeypatch.setattr(black_box.time, "sleep", slept.append)

    def trouble(number, memory):
        return (503, b"", [("Retry-After", "7")]) if number == 1 else None

    with Server(trouble=trouble) as server, asking(server) as teacher:
        teacher(inputs(5))
    assert 7 in slept


def test_a_hanging_server_is_left_in_time():
    with Server(trouble=lambda *_: "hangs when done") as server, asking(server, timeout=0.1, tries=2) as teacher:
        start = time.monotonic()
        assert "Timeout" in message_of(teacher, inputs(5))
        assert time.monotonic() - start < 4


class Bomb:
    """What runs when it is unpickled: it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(path)], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [pickled, lambda path: pickle.dumps(Bomb(path))], ids=["in an array", "bare"])
def test_nothing_is_unpickled(tmp_path, make):
    content = make(tmp_path / "ran")
    assert b"mkdir" in content
    with Server(answer=lambda x: content) as server, asking(server, body="npy") as teacher:
        assert "NumPy's format" in message_of(teacher, inputs(1))
    assert not (tmp_path / "ran").exists()
    assert len(server.memory.keys) == 1


def zipped():
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros((5, 3)))
    return buffer.getvalue()


def huge():
    """Says that it is larger than any memory."""
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
def test_answers_that_cannot_be_read(body, answer, part):
    with Server(answer=lambda x: answer) as server, asking(server, body=body) as teacher:
        assert part in message_of(teacher, inputs(5))
    assert len(server.memory.keys) == 1


def test_an_answer_beyond_the_limit():
    answer = b'{"outputs": [], "more": "' + b"x" * 2**20 + b'"}'
    with Server(answer=lambda x: answer) as server, asking(server, max_bytes=2**20) as teacher:
        assert "max_bytes" in message_of(teacher, inputs(5))


def test_messages_keep_secrets(tmp_path):
    with Server(trouble=lambda *_: (403, b"")) as server:
        url = server.url.replace("127", "user:word@127") + "?token=word"
        endpoint = Endpoint(url, headers={"Authorization": "word"})
        settings = QuerySettings("logits", 10, tries=1)
        with contextlib.closing(BlackBox(endpoint, SPEC, settings, tmp_path / "ledger")) as teacher:
            messages = [message_of(teacher, inputs(5))]
            server.__exit__()
            messages.append(message_of(teacher, inputs(5)))
    for message in (*messages, repr(endpoint)):
        assert "word" not in message
    assert all("127.0.0.1/classify" in message for message in messages)
    assert b"word" not in (tmp_path / "ledger").read_bytes()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"url": "ftp://127.0.0.1/"}, "url"),
        ({"url": "127.0.0.1:80"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://127.0.0.1/", "body": "pickle"}, "pickle"),
        ({"url": "http://127.0.0.1/", "timeout": 0}, "timeout"),
        ({"url": "http://127.0.0.1/", "max_bytes": 0}, "max_bytes"),
    ],
)
def test_fields_that_cannot_be(fields, part):
    assert part in message_of(lambda: Endpoint(**fields))


def test_headers_that_cannot_be():
    with Server() as server, asking(server, headers={"X-Key": "a\r\nb"}) as teacher:
        assert "InvalidHeader" in message_of(teacher, inputs(1))
    assert server.memory.keys == []
