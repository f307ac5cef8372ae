"""Ledgers that somebody made to do harm. Their checksums are right."""

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib

import numpy as np
import pytest
from cake_errors import message_of
from limits import little_memory, little_time

from cake_jax import export
from cake_jax.black_box import BlackBox, Ledger, QuerySettings
from cake_jax.black_box.ledger import Terms, digests
from cake_jax.types import DataSpec

SPEC = DataSpec((2,), 3)
X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


def ledger(path, kind, answers):
    made = Ledger(path, Terms(SPEC, kind))
    made.record(made.reserve(X), np.asarray(answers))
    made.close()
    return path


def checksum(digest, answer):
    return zlib.crc32(answer, zlib.crc32(digest))


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def change_terms(path, text):
    change(path, "UPDATE terms SET json = ?, checksum = ?", text, zlib.crc32(text.encode()))


def change_answer(path, content):
    digest = digests(X)[1]
    statement = "UPDATE rows SET answer = ?, checksum = ? WHERE digest = ?"
    change(path, statement, content, checksum(digest, content), digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"spec": {}, "answers": "labels"}),
        json.dumps({"spec": SPEC.to_dict(), "answers": ["labels"]}),
        json.dumps({"spec": {**SPEC.to_dict(), "shape": "2"}, "answers": "labels"}),
        json.dumps({"spec": {**SPEC.to_dict(), "shape": [10**400]}, "answers": "labels"}),
        json.dumps({"spec": SPEC.to_dict(), "answers": "labels", "function": "os:system"}),
    ],
)
def test_terms_of_another_form_are_refused(text, tmp_path):
    path = ledger(tmp_path / "ledger.sqlite", "labels", [0, 1, 2, 0])
    change_terms(path, text)
    assert message_of(Ledger, path).startswith(f"{path}: damaged, its terms")
    assert message_of(Ledger, path, Terms(SPEC, "labels")).startswith(f"{path}: damaged, its terms")


@pytest.mark.parametrize("shape", [[10**12], [10**9, 10**9], [3]])
def test_a_shape_that_the_inputs_do_not_have_is_refused(shape, tmp_path):
    path = ledger(tmp_path / "ledger.sqlite", "logits", np.zeros((4, 3), np.float32))
    change_terms(path, json.dumps({"spec": {**SPEC.to_dict(), "shape": shape}, "answers": "logits", "pixels": True}))
    with little_memory():
        message = message_of(export.export_queries, path, tmp_path / "queries.npz")
    assert message.startswith(f"{path}: damaged, ")
    assert not (tmp_path / "queries.npz").exists()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("labels", np.array([7], "<i4")),
        ("labels", np.array([-1], "<i4")),
        ("labels", np.array([], "<i4")),
        ("labels", np.array([1, 2], "<i4")),
        ("logits", np.array([0, np.nan, 0], "<f4")),
        ("logits", np.array([1], "<f4")),
        ("logits", np.zeros(5, np.uint8)),
        ("scores", np.array([-1, 1, 1], "<f4")),
    ],
)
def test_an_answer_that_no_teacher_can_give_is_refused(kind, content, tmp_path):
    valid = [0, 1, 2, 0] if kind == "labels" else np.full((4, 3), 1 / 3, np.float32)
    path = ledger(tmp_path / "ledger.sqlite", kind, valid)
    change_answer(path, content.tobytes())
    assert message_of(export.export_queries, path, tmp_path / "queries.npz").startswith(f"{path}: damaged, ")

    def ask():
        with contextlib.closing(BlackBox(lambda x: 1 / 0, SPEC, QuerySettings(kind, 10), path)) as box:
            box.predict(X)

    assert message_of(ask).startswith(f"{path}: damaged, ")


@pytest.mark.parametrize("answered", [True, False])
def test_an_input_of_another_size_is_refused(answered, tmp_path):
    path = ledger(tmp_path / "ledger.sqlite", "labels", [0, 1, 2, 0])
    content = bytes(40)
    answer = np.array([1], "<i4").tobytes()
    change(
        path,
        "UPDATE rows SET x = ?, digest = ?, answer = ?, checksum = ? WHERE number = 2",
        content,
        digest := hashlib.sha256(content).digest(),
        answer if answered else None,
        checksum(digest, answer),
    )
    assert message_of(Ledger, path) == (
        f"{path}: damaged, a row has not the size that its terms say; name another file"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER UPDATE ON rows BEGIN DELETE FROM rows; END",
        "CREATE VIEW evil AS SELECT 1",
        "CREATE TABLE evil (x)",
    ],
)
def test_other_things_in_the_database_are_refused(statement, tmp_path):
    path = ledger(tmp_path / "ledger.sqlite", "labels", [0, 1, 2, 0])
    change(path, statement)
    assert message_of(Ledger, path) == f"{path}: not a ledger of this version, or damaged; name another file"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    with little_time(), little_memory():
        for name in ("fifo", "device"):
            path = tmp_path / name
            assert message_of(Ledger, path).startswith(f"{path}: ")
            assert message_of(Ledger, path, Terms(SPEC, "labels")) == f"{path}: not a regular file"
