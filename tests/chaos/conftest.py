"""Fixtures of the tests under faults."""

from pathlib import Path

import pytest

from ..server.fixtures import engine
from ..server.harness import make_hung_tests_fail

__all__ = ["engine"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    make_hung_tests_fail(items, Path(__file__).parent)
