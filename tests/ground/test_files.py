"""Writes that are complete or nothing, and the cache folder."""

import errno
import os
from pathlib import Path

import pytest

from cake_jax.files import append_line, cache_folder, write_atomically


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_atomically_replaces_the_file(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("existing", [True, False])
def test_write_atomically_changes_nothing_if_it_fails(tmp_path, monkeypatch, call, existing):
    path = tmp_path / "file"
    if existing:
        path.write_bytes(b"old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_atomically(path, b"new content")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([("file", b"old")] if existing else [])


@pytest.mark.parametrize("torn", [b"", b"tor"])
def test_append_line_keeps_whole_lines(tmp_path, torn):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n" + torn)
    append_line(path, b"three\n")
    append_line(path, b"four\n")
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_append_line_makes_the_file(tmp_path):
    append_line(tmp_path / "log", b"one\n")
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_append_line_changes_nothing_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "log"
    append_line(path, b"one\n")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        append_line(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_append_line_follows_no_link(tmp_path):
    (tmp_path / "private").write_bytes(b"mine\n")
    (tmp_path / "log").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        append_line(tmp_path / "log", b"two\n")
    assert (tmp_path / "private").read_bytes() == b"mine\n"


def test_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder("data") == Path("/some/cache/cake_jax/data")
    default = Path.home() / ".cache" / "cake_jax" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder("data") == default
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("data") == default
