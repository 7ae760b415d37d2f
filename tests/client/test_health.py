"""The local service's health: what counts, and what visitors see of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from otun import ConfigurationError, HealthCheck, TcpAddress, Tunnel, TunnelSettings, UnixAddress, forward
from otun.client import health
from otun.client.health import Finding, Opinion
from otun.tls.trust import Trust

from ..server.harness import RunningServer
from ..server.services import receive_head, response
from ..server.visitors import fetch, receive_exactly
from ..tls.issuing import Authority

GOOD, BAD, REFUSED = Finding.GOOD, Finding.BAD, Finding.REFUSED


@pytest.mark.parametrize(
    ("findings", "opinions"),
    [
        ([GOOD, BAD, GOOD, BAD], [True, True, True, True]),
        ([BAD, BAD, BAD, GOOD], [True, False, False, True]),
        ([REFUSED, BAD, GOOD], [False, False, True]),
        ([BAD, BAD, GOOD, BAD, BAD], [True, False, True, True, False]),
    ],
    ids=str,
)
def test_two_bad_answers_or_one_refused_connection_count_and_one_good_answer(
    findings: list[Finding], opinions: list[bool]
) -> None:
    opinion = Opinion()
    found, changes = [], []
    for finding in findings:
        changes.append(opinion.found(finding))
        found.append(opinion.is_healthy)
    assert found == opinions
    assert changes == [new != old for old, new in zip([True, *opinions], opinions, strict=False)]


@pytest.mark.parametrize("path", ["", "healthz", "/a b", "/\n", "/é", "http://x/"])
def test_a_path_that_cannot_be_asked_for_is_a_mistake(path: str) -> None:
    with pytest.raises(ConfigurationError, match="is no path"):
        HealthCheck(path)


class Patient:
    """A service that answers /healthz by its status, and everything else by 200."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.heads: list[bytes] = []

    async def answer(self, stream: trio.abc.HalfCloseableStream) -> None:
        head, _ = await receive_head(stream)
        if b" /healthz " in head:
            self.heads.append(head)
            if not self.status:
                await trio.sleep_forever()
            await stream.send_all(response(b"", status=self.status))
        elif head:
            await stream.send_all(response(b"hello", "Connection: close"))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask without a pause."""
    monkeypatch.setattr(health, "INTERVAL", 0.001)


@asynccontextmanager
async def checked(server: RunningServer, local: TcpAddress, **options: object) -> AsyncIterator[Tunnel]:
    check = options.pop("health", HealthCheck("/healthz"))
    settings = TunnelSettings(name="app")
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(forward, server.control, local, settings, health=check, **options))
        nursery.cancel_scope.cancel()


async def see(server: RunningServer, status: int) -> None:
    """Visit until that is the answer."""
    while (answer := await fetch(server.public)).status != status:
        await trio.lowlevel.checkpoint()
    assert answer.fields.get("Otun-Error") == {200: None, 503: "unhealthy", 502: "local_service_unreachable"}[status]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", ["500 Oh", "404 Not Found", "100 Continue\r\n\r\nHTTP/1.1 503 Busy", "400 No"])
async def test_visitors_come_while_the_service_is_well(server: RunningServer, start_service, status: str) -> None:
    patient = Patient()
    service = await start_service(patient.answer)
    async with checked(server, service.address) as tunnel:
        await see(server, 200)
        patient.status = status
        await see(server, 503)
        patient.status = "302 Found"
        await see(server, 200)
        host = tunnel.url.partition("//")[2]
        assert f"\r\nHost: {host}\r\n".encode() in patient.heads[0]


@pytest.mark.usefixtures("soon")
async def test_the_host_may_be_another(server: RunningServer, start_service) -> None:
    patient = Patient()
    service = await start_service(patient.answer)
    async with checked(server, service.address, health=HealthCheck("/healthz", host="localhost:3000")):
        patient.status = "500 Oh"
        await see(server, 503)
    assert b"\r\nHost: localhost:3000\r\n" in patient.heads[0]


@pytest.mark.usefixtures("soon")
async def test_a_service_that_is_not_there_is_not_well(server: RunningServer, nobody_listens: TcpAddress) -> None:
    async with checked(server, nobody_listens):
        await see(server, 503)


@pytest.mark.usefixtures("soon")
async def test_a_service_that_says_nothing_is_not_well(server: RunningServer, start_service, monkeypatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.05)
    patient = Patient()
    service = await start_service(patient.answer)
    async with checked(server, service.address):
        await see(server, 200)
        patient.status = ""
        await see(server, 503)
        patient.status = "204 No Content"
        await see(server, 200)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_service_that_talks_nonsense_is_not_well(server: RunningServer, start_service, nonsense: bytes) -> None:
    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_head(stream)
        await stream.send_all(nonsense)

    service = await start_service(answer)
    async with checked(server, service.address):
        await see(server, 503)


@pytest.mark.usefixtures("soon")
async def test_a_service_that_wants_proxy_headers_gets_one_that_is_about_nobody(
    server: RunningServer, start_service
) -> None:
    beginnings = []

    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        header = await receive_exactly(stream, 16)
        await receive_exactly(stream, int.from_bytes(header[-2:]) or 1)  # The address, or the G of GET.
        head, _ = await receive_head(stream)
        if b" /healthz " in head:
            beginnings.append(header)
            await stream.send_all(response(status="500 Oh"))
        else:
            await stream.send_all(response(b"hello", "Connection: close"))

    service = await start_service(answer)
    async with checked(server, service.address, proxy_protocol=True):
        await see(server, 503)
    assert beginnings[0] == b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.mark.usefixtures("soon")
async def test_a_service_that_speaks_tls_is_asked_by_tls(server: RunningServer, start_service, tmp_path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context("localhost")
    patient = Patient()

    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with trio.SSLStream(stream, context, server_side=True, https_compatible=True) as encrypted:
                await patient.answer(encrypted)

    service = await start_service(answer)
    trust = Trust(ca=authority.path)
    async with checked(server, TcpAddress("localhost", service.address.port), local_trust=trust):
        await see(server, 200)
        patient.status = "500 Oh"
        await see(server, 503)
        patient.status = "200 OK"
        await see(server, 200)


@pytest.mark.usefixtures("soon")
async def test_a_unix_socket_is_asked_too(server: RunningServer, tmp_path) -> None:
    async with checked(server, UnixAddress(str(tmp_path / "missing"))):
        await see(server, 503)
