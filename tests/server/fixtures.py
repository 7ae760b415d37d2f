"""Fixtures that the tests of the server, of the client and of the library share."""

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from otun import Session
from otun.addresses import TcpAddress
from otun.server.control_port import ControlPort
from otun.server.http_port import HttpPort
from otun.server.registry import Registry

from ..tls.issuing import Authority
from .edges import Edge, StartEdge, edge_settings
from .harness import Engine, RunningServer, choose_engine, loopback_settings, run_server
from .log_lines import LogLines
from .services import Handler, Service
from .services import start_service as start_service_in

StartServer = Callable[..., Awaitable[RunningServer]]
StartService = Callable[[Handler], Awaitable[Service]]


@pytest.fixture(params=["epoll", "tasks"])
def engine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Engine]:
    """What all switchboards are made of.  Nothing that a peer does is an error of ours in the log."""
    choose_engine(request.param, monkeypatch)
    yield request.param
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@pytest.fixture
def start_server(engine: Engine, nursery: trio.Nursery) -> StartServer:
    """Start a server on loopback; keyword arguments are its settings."""

    async def start(**changes: object) -> RunningServer:
        return await run_server(nursery, loopback_settings(**changes))

    return start


@pytest.fixture
async def server(start_server: StartServer) -> RunningServer:
    """A server without a domain."""
    return await start_server()


@pytest.fixture
def start_service(nursery: trio.Nursery) -> StartService:
    """Start a local service that calls a handler for each connection."""

    async def start(handler: Handler) -> Service:
        return await start_service_in(nursery, handler)

    return start


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> list[Registry]:
    """The registry of each server that is started, in order: to look into its sessions."""
    made: list[Registry] = []

    def make(*arguments: object, **keywords: object) -> Registry:
        made.append(Registry(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr("otun.server.hub.Registry", make)
    return made


@pytest.fixture
def server_sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The server's ends of its sessions with clients, in the order in which they were made."""

    async def serve_client(port: ControlPort, session: Session, *arguments: object, **keywords: object) -> None:
        made.append(session)
        await serve(port, session, *arguments, **keywords)

    made: list[Session] = []
    serve = ControlPort.serve_client
    monkeypatch.setattr(ControlPort, "serve_client", serve_client)
    return made


@pytest.fixture
def http_ports(monkeypatch: pytest.MonkeyPatch) -> list[HttpPort]:
    """The part that counts visitors, of each server that is started, in order."""
    made: list[HttpPort] = []

    def make(*arguments: object, **keywords: object) -> HttpPort:
        made.append(HttpPort(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr("otun.server.hub.HttpPort", make)
    return made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that all who are to be trusted have their certificates from."""
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Another one."""
    return Authority(tmp_path)


@pytest.fixture
async def encrypted(start_server: StartServer, authority: Authority) -> RunningServer:
    """A server with a certificate for 127.0.0.1."""
    return await start_server(certificates=(authority.issue("127.0.0.1"),))


@pytest.fixture
def server_log() -> Iterator[LogLines]:
    """What the server logs from INFO up."""
    logger = logging.getLogger("otun.server")
    lines, level = LogLines(), logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


@pytest.fixture
def start_edge(
    start_server: StartServer,
    authority: Authority,
    http_ports: list[HttpPort],
    registries: list[Registry],
    caplog: pytest.LogCaptureFixture,
) -> StartEdge:
    """Start a server with a domain and with ports for HTTP and HTTPS; keyword arguments are its other settings."""
    caplog.set_level(logging.INFO)

    async def start(**changes: object) -> Edge:
        running = await start_server(**edge_settings(authority, changes))
        return Edge(running, authority, http_ports[-1], registries[-1], caplog)

    return start


@pytest.fixture
async def edge(start_edge: StartEdge) -> Edge:
    """One of those, with a certificate for all names below its domain."""
    return await start_edge()


@pytest.fixture
def nobody_listens() -> Iterator[TcpAddress]:
    """An address of this machine that refuses connections, and goes on doing so during the test."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield TcpAddress("127.0.0.1", sock.getsockname()[1])
