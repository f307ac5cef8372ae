"""Answers of a server that wants to do harm."""

import gzip
import json

import numpy as np
import pytest
from cake_errors import message_of
from hostile_arrays import npy_header, pickled
from http_server import Server
from limits import little_time

from cake_jax.black_box import BlackBox, Endpoint, QuerySettings
from cake_jax.types import DataSpec

X = np.random.default_rng(0).uniform(size=(2, 2)).astype(np.float32)


def message_for(answer, tmp_path, body="json", kind="logits", **options):
    """The message of a black box of three classes that gets an answer: bytes, or status, body and headers."""
    as_response = answer if isinstance(answer, tuple) else (200, answer)
    with Server(failure=lambda number, memory: as_response) as server, little_time():
        endpoint = Endpoint(server.url, body=body, timeout=5.0, **options)
        box = BlackBox(endpoint, DataSpec((2,), 3), QuerySettings(kind, 10, tries=1), tmp_path / "ledger.sqlite")
        try:
            return message_of(box.predict, X)
        finally:
            box.close()


def outputs(text):
    return b'{"outputs": ' + text.encode() + b"}"


@pytest.mark.parametrize("depth", [20, 500, 900, 990, 1500, 100_000])
def test_nested_lists_are_refused(depth, tmp_path):
    assert message_for(outputs("[" * depth + "]" * depth), tmp_path)


@pytest.mark.parametrize(
    "text",
    ["NaN", "[[NaN, 0, 0], [0, 0, 0]]", "[[1e999, 0, 0], [0, 0, 0]]", "[[1" + "0" * 400 + ", 0, 0], [0, 0, 0]]"]
    + ["9" * 5000, '"__import__"', "{}", "[[0, 0, 0]]", "null", "[[[0, 0, 0]], [[0, 0, 0]]]"],
)
def test_numbers_that_are_no_logits_are_refused(text, tmp_path):
    assert message_for(outputs(text), tmp_path).startswith(("teacher: its ", "127.0.0.1/classify: its answer is not"))


@pytest.mark.parametrize("label", ["-1", "3", "1e3", "1" + "0" * 400, "null"])
def test_labels_that_are_no_classes_are_refused(label, tmp_path):
    assert message_for(outputs(f"[0, {label}]"), tmp_path, kind="labels").startswith("teacher: its ")


def test_a_long_answer_is_not_read_to_its_end(tmp_path):
    message = message_for(outputs("0" * 2**20), tmp_path, max_bytes=2**17)
    assert message == "127.0.0.1/classify: its answer is longer than max_bytes = 131072"


def test_a_compressed_answer_counts_with_its_unpacked_size(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr("cake_jax.black_box.endpoint.bytearray", lambda: Measured(sizes), raising=False)
    packed = gzip.compress(gzip.compress(bytes(2**28)))
    headers = [("Content-Encoding", "gzip, gzip")]
    message = message_for((200, packed, headers), tmp_path, max_bytes=2**20)
    assert message == "127.0.0.1/classify: its answer is longer than max_bytes = 1048576"
    assert max(sizes) < 2**22


class Measured(bytearray):
    """An array that records its size whenever it grows."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __iadd__(self, other):
        result = super().__iadd__(other)
        self.sizes.append(len(self))
        return result


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://127.0.0.1:1/other", "//example.invalid/", "gopher://x"]
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status, target, tmp_path):
    message = message_for((status, b"moved", [("Location", target)]), tmp_path)
    assert message == f"127.0.0.1/classify: status {status} moved"


@pytest.mark.parametrize("wait", ["9" * 400, "9" * 5000, "-5", "nan", "Fri, 31 Dec 99999 23:59:59 GMT", "Fri, 31 Foo"])
def test_an_absurd_wait_ends_in_one_line(wait, tmp_path):
    message = message_for((503, b"", [("Retry-After", wait)]), tmp_path)
    assert message.startswith("teacher: ")
    assert "status 503" in message


def test_arrays_in_numpys_format_run_no_code_and_claim_no_memory(tmp_path):
    trace = tmp_path / "trace"
    for answer in (
        pickled(trace),
        npy_header((10**12, 3)),
        npy_header((2**62, 2**62)),
        npy_header((-2, 3)),
        npy_header((2, 3))[:20],
        b"\x93NUMPY\x09\x00",
        b"",
    ):
        message = message_for(answer, tmp_path, body="npy")
        assert message.startswith("127.0.0.1/classify: its answer is not an array in NumPy's format: ")
    assert not trace.exists()


def test_the_text_of_an_error_is_cut_and_has_no_control_codes(tmp_path):
    message = message_for((400, b"\x1b[2J\r\n" + b"x" * 10_000, []), tmp_path)
    assert message.startswith("127.0.0.1/classify: status 400 [2Jxx")
    assert len(message) < 300


def test_refused_answers_that_cannot_be_kept_as_json_do_not_hide_the_reason(tmp_path):
    text = json.dumps({"outputs": ["\ud800"] * 2})
    assert message_for(text.encode(), tmp_path).startswith("teacher: its logits")
