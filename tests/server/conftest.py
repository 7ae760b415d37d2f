"""Fixtures of the server's tests."""

from pathlib import Path

import pytest

from .fixtures import (
    authority,
    edge,
    encrypted,
    engine,
    http_ports,
    nobody_listens,
    registries,
    server,
    server_log,
    server_sessions,
    start_edge,
    start_server,
    start_service,
    stranger,
)
from .harness import make_hung_tests_fail
from .limited import start_limited, traffics, unix

__all__ = [
    "authority",
    "edge",
    "encrypted",
    "engine",
    "http_ports",
    "nobody_listens",
    "registries",
    "server",
    "server_log",
    "server_sessions",
    "start_edge",
    "start_limited",
    "start_server",
    "start_service",
    "stranger",
    "traffics",
    "unix",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    make_hung_tests_fail(items, Path(__file__).parent)
