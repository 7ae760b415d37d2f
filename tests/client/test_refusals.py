"""A server that says no, at first or later: exceptions that a program can tell apart."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from otun import (
    InvalidRegistration,
    NameTaken,
    NotAllowed,
    RegistrationRefused,
    SessionClosed,
    TcpAddress,
    TokenRefused,
    Tunnel,
    TunnelEnded,
    TunnelSettings,
    open_session,
    open_tunnel,
    open_tunnels,
)
from otun.mux import Session, Stream

from ..server.fixtures import StartService
from .support import Use, uses

GRANTED = {"type": "registered", "url": "http://app.example", "subdomain": "app", "stream_header": True}


def error(code: str, *, retryable: bool = False, **fields: object) -> dict[str, object]:
    return {"type": "error", "message": f"no: {code}", "code": code, "retryable": retryable, **fields}


async def start_saying(start_service: StartService, *answers: dict[str, object]) -> TcpAddress:
    """Start a server that says one of *answers* to each message of its client."""

    async def serve(connection: trio.SocketStream) -> None:
        async with session_of(connection) as (session, control):
            for answer in answers:
                await control.receive_some()
                await control.send_all(json.dumps(answer).encode())
            await session.wait_closed()

    return (await start_service(serve)).address


@asynccontextmanager
async def session_of(connection: trio.SocketStream) -> AsyncIterator[tuple[Session, Stream]]:
    async with open_session(connection, "server") as session:
        yield session, await session.accept()


CODES = pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_token", TokenRefused),
        ("name_taken", NameTaken),
        ("port_not_allowed", NotAllowed),
        ("path_invalid", InvalidRegistration),
        ("from_the_future", RegistrationRefused),
    ],
)


@CODES
@pytest.mark.parametrize("retryable", [True, False])
async def test_a_refusal_is_of_the_class_for_its_code(
    engine, start_service: StartService, code: str, kind: type[RegistrationRefused], retryable: bool
) -> None:
    server = await start_saying(start_service, error(code, retryable=retryable))
    with pytest.raises(RegistrationRefused) as caught:
        async with open_tunnel(server):
            pass
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.code) == (f"no: {code}", code)
    assert caught.value.is_retryable == retryable


@CODES
async def test_so_is_that_of_a_further_tunnel(
    engine, start_service: StartService, code: str, kind: type[RegistrationRefused]
) -> None:
    server = await start_saying(start_service, GRANTED, error(code, id="1", retryable=True))
    with pytest.raises(RegistrationRefused) as caught:
        async with open_tunnels(server, [TunnelSettings(name="app"), TunnelSettings(name="other")]):
            pass
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.is_retryable) == (code, True)


# Later


@asynccontextmanager
async def ended_with(start_service: StartService, farewell: dict[str, object]) -> AsyncIterator[Tunnel]:
    """Open a tunnel that the server ends by a *farewell* once it is open."""

    async def serve(connection: trio.SocketStream) -> None:
        async with session_of(connection) as (_, control):
            await control.receive_some()
            await control.send_all(json.dumps(GRANTED).encode())
            await may_end.wait()
            await control.send_all(json.dumps(farewell).encode())

    may_end = trio.Event()
    server = (await start_service(serve)).address
    async with open_tunnel(server, reconnect=False) as tunnel:
        may_end.set()
        yield tunnel


@uses
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("token_revoked", TokenRefused),
        ("taken_over", RegistrationRefused),
        ("kicked", RegistrationRefused),
        ("silent", RegistrationRefused),
        ("from_the_future", RegistrationRefused),
    ],
)
@pytest.mark.parametrize("retryable", [True, False])
async def test_a_server_that_ends_the_tunnel_says_why_to_whatever_uses_it(
    engine, start_service: StartService, use: Use, code: str, kind: type[RegistrationRefused], retryable: bool
) -> None:
    async with ended_with(start_service, error(code, retryable=retryable)) as tunnel:
        for _ in range(2):
            with trio.fail_after(10), pytest.raises(TunnelEnded) as caught:
                await use(tunnel)
            assert str(caught.value).endswith(f" ended the tunnel: no: {code}")
            refusal = caught.value.refusal
            assert type(refusal) is kind
            assert (str(refusal), refusal.code, refusal.is_retryable) == (f"no: {code}", code, retryable)


async def test_such_an_end_is_the_end_of_the_session_to_code_that_knows_no_more(
    engine, start_service: StartService
) -> None:
    async with ended_with(start_service, error("kicked")) as tunnel:
        with pytest.raises(TunnelEnded) as caught:
            await tunnel.accept()
    assert isinstance(caught.value, SessionClosed)
    assert isinstance(caught.value, trio.BrokenResourceError)
    assert isinstance(caught.value, trio.ClosedResourceError)
    assert (caught.value.is_clean, caught.value.code) == (False, None)


async def test_a_server_that_gives_no_code_has_ended_the_session_and_said_so(
    engine, start_service: StartService
) -> None:
    async with ended_with(start_service, {"type": "error", "message": "repairs"}) as tunnel:
        with pytest.raises(SessionClosed, match="ended the tunnel: repairs") as caught:
            await tunnel.accept()
    assert type(caught.value) is SessionClosed


async def test_a_server_that_ends_the_session_before_all_tunnels_are_open_has_said_why(
    engine, start_service: StartService
) -> None:
    server = await start_saying(start_service, GRANTED, error("token_revoked"))
    with pytest.raises(TunnelEnded) as caught:
        async with open_tunnels(server, [TunnelSettings(name="app"), TunnelSettings(name="other")]):
            pass
    assert str(caught.value) == f"the server at {server} ended the tunnel: no: token_revoked"
    assert isinstance(caught.value.refusal, TokenRefused)
