"""Asking the local service how it is, so that the server can pass it over while it is not well."""

import logging
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import attrs
import trio

from ..control.excerpt import excerpt
from ..errors import BadResponse, ConfigurationError
from ..http.head import ResponseHeadReader
from ..proxy_protocol import ProxyHeader, encode_v2
from ..switchboard import shake_hands
from .connecting import explain_connect_error
from .local_service import LocalService

logger: logging.Logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds from one answer to the next question: for so long, and a little more, visitors may see a broken service."""

TIMEOUT: Final = 3.0
"""Seconds for an answer's head, the connection included."""

FAILURES: Final = 2
"""Bad answers, or none, after which the service is not well: one may be lost.  A refused connection counts at once."""

_READ_SIZE: Final = 16 * 1024


def check_health_path(path: str) -> str:
    """Return *path*, which can be asked for.  Raises `ConfigurationError`."""
    if not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise ConfigurationError(f"{excerpt(path)} is no path; write one such as /healthz")
    return path


@attrs.frozen
class HealthCheck:
    """What to ask the local service for, and under which *host*: the tunnel's, unless there is another.

    Raises `ConfigurationError`.
    """

    path: str = attrs.field(converter=check_health_path)
    host: str = ""


@attrs.frozen
class ReportedHealth:
    """A check whose findings somebody wants to be told: with True, the local service is well."""

    check: HealthCheck
    tell: Callable[[bool], None]


class Finding(Enum):
    """What has come of one question."""

    GOOD = auto()
    BAD = auto()
    REFUSED = auto()  # Nobody listens.


class Opinion:
    """Whether the local service is well; it is, until the contrary shows."""

    def __init__(self) -> None:
        self.is_healthy: bool = True
        self._failures = 0

    def found(self, finding: Finding) -> bool:
        """Take note of a finding, and return whether it changes anything."""
        before = self.is_healthy
        match finding:
            case Finding.GOOD:
                self._failures = 0
            case Finding.BAD:
                self._failures += 1
            case Finding.REFUSED:
                self._failures = FAILURES
        self.is_healthy = self._failures < FAILURES
        return self.is_healthy is not before


async def keep_checking(service: LocalService, reported: ReportedHealth, *, proxy_protocol: bool) -> None:
    """Tell whenever it has changed whether *service* is well, until cancelled."""
    opinion, check = Opinion(), reported.check
    preface = encode_v2(ProxyHeader(None, None)) if proxy_protocol else b""
    head = f"GET {check.path} HTTP/1.1\r\nHost: {check.host}\r\nUser-Agent: otun-health\r\nConnection: close\r\n\r\n"
    while True:
        finding, problem = await _ask(service, preface, head.encode())
        if opinion.found(finding):
            if opinion.is_healthy:
                logger.warning("the local service %s is well again", service)
            else:
                logger.warning("the local service %s is not well, and gets no visitors: %s", service, problem)
            reported.tell(opinion.is_healthy)
        await trio.sleep(INTERVAL)


async def _ask(service: LocalService, preface: bytes, request: bytes) -> tuple[Finding, str]:
    """Ask once; return what was found, and in what way it is bad."""
    if not service.places:
        return Finding.BAD, service.problem
    is_refused = True
    problem = ""
    with trio.move_on_after(TIMEOUT):
        for family, address in service.places:
            try:
                status = await _ask_at(service, family, address, preface, request)
            except BadResponse as error:
                return Finding.BAD, f"its answer is no proper HTTP: {error}"
            except OSError as error:
                is_refused = is_refused and isinstance(error, ConnectionRefusedError | FileNotFoundError)
                problem = explain_connect_error(error)
            else:
                return Finding.GOOD if 200 <= status < 400 else Finding.BAD, f"it has answered with {status}"
        service.failed()
        return Finding.REFUSED if is_refused else Finding.BAD, problem
    return Finding.BAD, f"no answer within {TIMEOUT:g} seconds"


async def _ask_at(
    service: LocalService, family: int, address: str | tuple[str, int], preface: bytes, request: bytes
) -> int:
    """Return the answer's status.  Raises `OSError` and `BadResponse`."""
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    with connecting:
        await connecting.connect(address)
        if preface:
            await trio.SocketStream(connecting).send_all(preface)
        sock = socket.socket(fileno=connecting.detach())
    try:
        sock.setblocking(False)
        if service.is_encrypted:
            sock = secured = service.encrypt(sock)
            await shake_hands(secured)
            service.check(secured)
        return await _exchange(sock, request)
    finally:
        sock.close()


async def _exchange(sock: socket.socket, request: bytes) -> int:
    reader = ResponseHeadReader()
    sock.send(request)  # A new connection has room for it.
    while True:
        try:
            data = sock.recv(_READ_SIZE)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        if not data:
            raise ConnectionAbortedError("it has closed the connection without an answer")
        while data:
            head = reader.feed(data)
            if head is None:
                break
            if not head.is_interim:
                return head.status
            data, reader = reader.rest, ResponseHeadReader()
