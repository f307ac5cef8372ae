"""Fixtures of the tests of runs."""

import shutil

import pytest
import runs


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run of `runs.small_config()`. Tests may read it and copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    runs.run(runs.small_config(), folder, variant="small")
    return folder


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the finished run's folder that lacks the results and the student."""
    shutil.copytree(finished, tmp_path / "unfinished")
    runs.drop_results(tmp_path / "unfinished", "student")
    return tmp_path / "unfinished"
