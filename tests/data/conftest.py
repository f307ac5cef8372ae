"""Fixtures of the data tests."""

import sys

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def without_tensorflow(monkeypatch):
    """TensorFlow counts as not installed."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
