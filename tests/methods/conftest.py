"""The untrained student that guides the methods in the plane."""

import pytest
from small_methods import PLANE, student_of


@pytest.fixture(scope="session")
def student():
    return student_of(PLANE)
