"""A server with ports for HTTP and HTTPS, and what can be seen of it from outside and in its log."""

import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs
import pytest
import trio
import trio.testing

from otun import TcpAddress
from otun.server.http_port import HttpPort
from otun.server.registry import Registration, Registry

from ..tls.issuing import Authority
from .certificates import DOMAIN, TlsVisitor, fetch_tls, visiting
from .harness import LOOPBACK, RunningServer
from .visitors import Answer

NAME: Final = f"app.{DOMAIN}"
"""The host of the tunnel `app`."""

PATIENCE: Final = 10.0
"""Seconds for what must happen soon."""

StartEdge = Callable[..., Awaitable["Edge"]]

_VISITOR: Final = re.compile(r"visitor [0-9a-f.:\[\]]+:[0-9]+: (.*)", re.DOTALL)


@attrs.frozen
class Edge:
    """The server, and what its visitors believe."""

    server: RunningServer
    authority: Authority
    _http_port: HttpPort
    _registry: Registry
    _caplog: pytest.LogCaptureFixture

    @property
    def control(self) -> TcpAddress:
        return self.server.control

    @property
    def public(self) -> TcpAddress:
        return self.server.public

    @property
    def https(self) -> TcpAddress:
        return self.server.https

    @property
    def context(self) -> ssl.SSLContext:
        """A visitor's, each time a new one."""
        return self.authority.client_context()

    def visiting(self, name: str | None = NAME, *, before: bytes = b"") -> AbstractAsyncContextManager[TlsVisitor]:
        """Connect to the HTTPS port, and ask for *name*."""
        return visiting(self.https, self.context, name, before=before)

    async def fetch(self, target: str = "/", *fields: str, **keywords: object) -> Answer:
        """Make one request by HTTPS."""
        return await fetch_tls(self.https, self.context, target, *fields, **keywords)  # type: ignore[arg-type]

    @property
    def visitors(self) -> int:
        """Those that the server counts."""
        return self._http_port.visitors

    async def see_nobody(self) -> None:
        """Wait until the server counts no visitors, and no streams."""
        with trio.fail_after(PATIENCE):
            while self.visitors or any(one.streams for one in self.tunnels):
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert self.visitors == 0

    async def see_visitors(self, count: int) -> None:
        """Wait until the server counts so many."""
        with trio.fail_after(PATIENCE):
            while self.visitors != count:
                await trio.testing.wait_all_tasks_blocked(0.001)

    @property
    def tunnels(self) -> set[Registration]:
        """The tunnels that are open."""
        return {tunnel for route in self._registry._present for tunnel in route.members}

    @property
    def reports(self) -> list[str]:
        """What the log says of visitors, without their addresses."""
        messages = [record.getMessage() for record in self._caplog.records if record.name == "otun.server.reports"]
        assert not [message for message in messages if "\n" in message or not message.isprintable()]
        return [match[1] if (match := _VISITOR.fullmatch(message)) else message for message in messages]

    async def see_report(self) -> str:
        """Wait until the log says something of a visitor: the only line that it has."""
        with trio.fail_after(PATIENCE):
            while not self.reports:
                await trio.testing.wait_all_tasks_blocked(0.001)
        (line,) = self.reports
        return line


def edge_settings(authority: Authority, changes: dict[str, object]) -> dict[str, object]:
    """The settings of an edge: with *changes*, and a certificate for all names below the domain unless there is one."""
    if "certificates" not in changes:
        changes = changes | {"certificates": (authority.certify(f"*.{DOMAIN}"),)}
    return {"domain": DOMAIN, "https": LOOPBACK} | changes
