"""Tunnels that outlive their sessions, on a clock that jumps."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from otun import (
    ConfigurationError,
    Connected,
    HealthCheck,
    Lost,
    NameTaken,
    OtunError,
    Refused,
    RegistrationRefused,
    Retrying,
    ServerNotTrusted,
    ServerUnreachable,
    SessionClosed,
    TokenRefused,
    Tunnel,
    TunnelEnded,
    TunnelEvent,
    TunnelLost,
    TunnelUnprotected,
)
from otun.client.backoff import HEALTHY_AFTER, LONG_OUTAGE, MAX_DELAY, MAX_DELAY_IN_LONG_OUTAGE
from otun.client.contact import WAKING_TIMEOUT
from otun.client.events import EVENTS_KEPT
from otun.client.link import CHOICE_KEPT, CONNECT_TIMEOUT, FIRST_CONNECT_TIMEOUT, MAX_SESSIONS
from otun.control.messages import Register

from .memory_link import FakeServer, Message, ServerEnd, error, fake_server, grant, linked

UNREACHABLE = ServerUnreachable("cannot reach the server at server.example:4443: connection refused")


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server() as server:
        yield server


async def see_end(tunnel: Tunnel) -> SessionClosed:
    with pytest.raises(SessionClosed) as caught:
        await tunnel.accept()
    with pytest.raises(SessionClosed) as again:
        await tunnel.accept()
    assert str(again.value) == str(caught.value)
    return caught.value


async def next_visitor(tunnel: Tunnel, end: ServerEnd, said: bytes) -> None:
    """A visitor comes by the session of *end*, and is answered."""
    visitor = await end.session.open_stream()
    await visitor.send_all(said)
    await visitor.send_eof()
    stream = await tunnel.accept()
    received = b"".join([piece async for piece in stream])
    assert received == said
    await stream.send_all(b"answer")
    await stream.aclose()
    assert b"".join([piece async for piece in visitor]) == b"answer"


# Coming back


async def test_the_listener_goes_on_over_sessions(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        for number in range(4):
            end = await server.wait_for_session(number)
            await next_visitor(tunnel, end, b"visitor %d" % number)
            await end.drop()


async def test_who_waits_to_accept_gets_a_visitor_of_the_next_session(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:

        async def accept() -> None:
            stream = await tunnel.accept()
            assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

        nursery.start_soon(accept)
        await server.ends[0].drop()
        end = await server.wait_for_session(1)
        await (await end.session.open_stream()).send_all(b"hello")
        await trio.sleep_forever()


async def test_a_served_tunnel_is_served_on(autojump_clock, server: FakeServer) -> None:
    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.send_all(b"served: " + await stream.receive_some())

    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:
        nursery.start_soon(tunnel.serve, answer)
        for number in range(3):
            end = await server.wait_for_session(number)
            visitor = await end.session.open_stream()
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"served: x"
            await end.drop()
        nursery.cancel_scope.cancel()


async def test_the_same_is_asked_for_with_the_newest_secret(autojump_clock, server: FakeServer) -> None:
    asked = Register(subdomain="app", token="token", hostnames=("app.example.org",), path="/api", local="3000")
    async with linked(server, asked, resume="of old") as (tunnel,):
        for number, secret in enumerate(["of old", "secret 1", "secret 2"]):
            end = await server.wait_for_session(number)
            (request,) = end.requests
            assert request.pop("resume") == secret
            assert request == server.ends[0].requests[0] | request
            assert request["hostnames"] == ["app.example.org"]
            assert tunnel.resume_secret == f"secret {number + 1}"
            await end.drop()


async def test_what_the_server_has_chosen_is_asked_for_again(autojump_clock, server: FakeServer) -> None:
    asked = (
        Register(stream_header=True),
        Register(id="1", kind="tcp", stream_header=True),
        Register(id="2", kind="tls", stream_header=True),
    )
    server.answer = lambda request: grant(request) | {"subdomain": f"made-up{request.get('id', '')}"}
    async with linked(server, *asked):
        await server.ends[0].drop()
        end = await server.wait_for_session(1)
        assert [request.get("subdomain") for request in server.ends[0].requests] == [None, None, None]
        assert [request.get("subdomain") for request in end.requests] == ["made-up", None, "made-up2"]
        assert [request.get("remote_port") for request in end.requests] == [None, 20_000, None]


@pytest.mark.parametrize("url", ["tcp://server.example", "tcp://server.example:0x50", "tcp://[", "http://x:99999"])
async def test_a_port_that_the_server_does_not_tell_is_its_to_choose_again(
    autojump_clock, server: FakeServer, url: str
) -> None:
    server.answer = lambda request: grant(request) | {"url": url}
    async with linked(server, Register(kind="tcp")):
        await server.ends[0].drop()
        (request,) = (await server.wait_for_session(1)).requests
        assert "remote_port" not in request


async def test_the_url_is_the_newest_one(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        server.answer = lambda request: grant(request) | {"url": "https://elsewhere.example", "subdomain": "other"}
        await server.ends[0].drop()
        await server.wait_for_session(1)
        assert (tunnel.url, tunnel.name) == ("https://elsewhere.example", "other")
        assert "open" in repr(tunnel)


# When


async def test_attempts_become_rare_in_a_long_outage(autojump_clock, server: FakeServer) -> None:
    async with linked(server):
        assert server.attempts[0].timeout == FIRST_CONNECT_TIMEOUT
        await trio.sleep(HEALTHY_AFTER)
        server.problem = UNREACHABLE
        began = trio.current_time()
        await server.ends[0].drop()
        await trio.sleep(LONG_OUTAGE + 300)
        assert server.attempts[1].at - began == pytest.approx(0.2, abs=0.01)
        assert server.delays[1:6] == [0.4, 0.8, 1.6, MAX_DELAY, MAX_DELAY]
        assert server.delays[-3:] == [MAX_DELAY_IN_LONG_OUTAGE] * 3
        assert {one.timeout for one in server.attempts[1:]} == {CONNECT_TIMEOUT}


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_a_minute_of_health_ends_an_outage(autojump_clock, server: FakeServer, is_healthy: bool) -> None:
    async with linked(server) as (tunnel,):
        await trio.sleep(HEALTHY_AFTER)
        events = tunnel.events()
        for number in range(4):
            await server.ends[number].drop()
            await server.wait_for_session(number + 1)
            await trio.sleep(HEALTHY_AFTER if is_healthy else 1)
        tried = [event for event in [await anext(events) for _ in range(13)] if isinstance(event, Retrying)]
        assert [event.delay for event in tried] == [0.2] * 4 if is_healthy else [0.2, 0.4, 0.8, 1.6]


@pytest.mark.parametrize("most", [1, 3])
async def test_attempts_in_one_outage_may_be_limited(autojump_clock, server: FakeServer, most: int) -> None:
    async with linked(server, max_retries=most) as (tunnel,):
        await trio.sleep(HEALTHY_AFTER)
        await server.ends[0].drop()
        end = await server.wait_for_session(1)
        await trio.sleep(HEALTHY_AFTER)
        server.problem = UNREACHABLE
        await end.drop()
        ended = await see_end(tunnel)
        assert isinstance(ended, TunnelLost)
        assert ended.error is UNREACHABLE
        assert str(ended) == f"gave up after {most} attempts to come back: {UNREACHABLE}"
        assert len(server.attempts) == 2 + most


async def test_without_reconnecting_the_first_loss_is_the_end(autojump_clock, server: FakeServer) -> None:
    async with linked(server, reconnect=False) as (tunnel,):
        await server.ends[0].drop()
        ended = await see_end(tunnel)
        assert str(ended) == "lost the server at server.example:4443: it closed the connection"
        assert "closed" in repr(tunnel)
        assert [type(event) async for event in tunnel.events()] == [Refused]
    assert len(server.attempts) == 1


# Whether


@pytest.mark.parametrize(
    "problem",
    [UNREACHABLE, ServerNotTrusted("self-signed"), ConfigurationError("bad"), NameTaken("x", is_retryable=True)],
)
async def test_the_first_attempt_is_the_only_one(autojump_clock, server: FakeServer, problem: OtunError) -> None:
    server.problem = problem
    with pytest.raises(type(problem)) as caught:
        async with linked(server):
            raise AssertionError("the body must not run")
    assert caught.value is problem
    assert len(server.attempts) == 1


@pytest.mark.parametrize(
    "problem",
    [
        UNREACHABLE,
        ServerNotTrusted("the portal of a hotel"),
        NameTaken("in use", code="name_taken", is_retryable=True),
        NameTaken("in use", code="port_taken", is_retryable=True),
        RegistrationRefused("shutting down", code="shutting_down", is_retryable=True),
        RegistrationRefused("the Go program gives no code"),
        SessionClosed("lost again"),
    ],
    ids=lambda problem: f"{type(problem).__name__} {getattr(problem, 'code', '')}",
)
async def test_what_may_pass_is_waited_for(autojump_clock, server: FakeServer, problem: OtunError) -> None:
    async with linked(server) as (tunnel,):
        server.problem = problem
        await server.ends[0].drop()
        await trio.sleep(1000)
        assert "reconnecting" in repr(tunnel)
        server.problem = None
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (TokenRefused("revoked", code="bad_token"), TunnelEnded),
        (NameTaken("reserved", code="name_taken"), TunnelEnded),
        (RegistrationRefused("from the future", code="from_the_future"), TunnelEnded),
        (TunnelUnprotected("no rules"), TunnelLost),
        (ConfigurationError("the file of authorities is gone"), TunnelLost),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_will_not_pass_ends_the_tunnel(
    autojump_clock, server: FakeServer, problem: OtunError, kind: type
) -> None:
    async with linked(server) as (tunnel,):
        server.problem = problem
        await server.ends[0].drop()
        ended = await see_end(tunnel)
        assert type(ended) is kind
        assert (ended.refusal if isinstance(ended, TunnelEnded) else ended.error) is problem
        assert str(problem) in str(ended)
    assert len(server.attempts) == 2


@pytest.mark.parametrize("goes_away", [True, False])
async def test_a_server_that_ends_the_tunnel_for_good_is_not_asked_again(
    autojump_clock, server: FakeServer, goes_away: bool
) -> None:
    async with linked(server) as (tunnel,):
        (end,) = server.ends
        await end.say(error("taken_over"))
        if goes_away:
            server.nursery.start_soon(end.session.aclose)
        ended = await see_end(tunnel)
        assert isinstance(ended, TunnelEnded)
        assert ended.refusal.code == "taken_over"
    assert len(server.attempts) == 1


@pytest.mark.parametrize("farewell", [error("shutting_down", retryable=True), {"type": "error", "message": "repairs"}])
async def test_a_server_that_ends_it_for_now_is(autojump_clock, server: FakeServer, farewell: Message) -> None:
    async with linked(server) as (tunnel,):
        await server.ends[0].say(farewell)
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")


# Names and ports that the server has chosen


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_a_choice_that_somebody_has_is_left_to_the_server_after_a_while(
    autojump_clock, server: FakeServer, kind: str
) -> None:
    def refuse(request: Message) -> Message:
        has_choice = "subdomain" in request or "remote_port" in request
        asked.append((trio.current_time(), has_choice))
        return error("name_taken", retryable=True) if has_choice else grant(request)

    asked: list[tuple[float, bool]] = []
    async with linked(server, Register(kind=kind)):
        server.answer = refuse
        began = trio.current_time()
        await server.ends[0].drop()
        await server.wait_for_session(1)
    *before, (at, has_choice) = asked
    assert not has_choice
    assert all(had_choice for _, had_choice in before)
    assert at - began == pytest.approx(CHOICE_KEPT, abs=2 * MAX_DELAY + 0.1)


async def test_a_choice_that_is_reserved_is_left_to_it_at_once(autojump_clock, server: FakeServer) -> None:
    async with linked(server, Register()) as (tunnel,):
        server.answer = lambda request: error("name_taken") if "subdomain" in request else grant(request)
        await server.ends[0].drop()
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")
    assert len(server.attempts) == 3


async def test_a_name_of_ones_own_is_asked_for_until_it_is_free(autojump_clock, server: FakeServer) -> None:
    async with linked(server, Register(subdomain="mine")) as (tunnel,):
        server.answer = lambda _: error("name_taken", retryable=True)
        await server.ends[0].drop()
        await trio.sleep(10 * CHOICE_KEPT)
        server.answer = grant
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")
    assert server.ends[1].requests[0]["subdomain"] == "mine"


# How a loss is noticed


async def test_a_silent_server_is_noticed_within_15_seconds(autojump_clock, server: FakeServer) -> None:
    async with linked(server):
        await trio.sleep(100)
        server.ends[0].fall_silent()
        began = trio.current_time()
        await server.wait_for_session(1)
        assert trio.current_time() - began <= 15 + 1


async def test_a_server_that_says_anything_is_alive(autojump_clock, server: FakeServer) -> None:
    async with linked(server):
        (end,) = server.ends
        for _ in range(100):
            await trio.sleep(9)
            await end.session.ping()
        await trio.sleep(1000)
    assert len(server.attempts) == 1


async def test_waking_up_shows_at_once_whether_the_server_is_there(autojump_clock, server: FakeServer) -> None:
    slept = 0.0
    async with linked(server, suspended=lambda: slept):
        await trio.sleep(HEALTHY_AFTER)
        slept = 3600.0
        await trio.sleep(20)
        assert len(server.attempts) == 1  # It was.
        await server.ends[0].session.ping()
        server.ends[0].fall_silent()
        slept = 7200.0
        began = trio.current_time()
        await server.wait_for_session(1)
        assert trio.current_time() - began <= 2 + WAKING_TIMEOUT + 1


async def test_waking_up_ends_the_wait_for_the_next_attempt(autojump_clock, server: FakeServer) -> None:
    slept = 0.0
    async with linked(server, suspended=lambda: slept):
        server.problem = UNREACHABLE
        await server.ends[0].drop()
        await trio.sleep(LONG_OUTAGE + 100)
        await server.wait_for_attempt()
        server.problem = None
        slept = 3600.0
        began = trio.current_time()
        await server.wait_for_session(1)
        assert trio.current_time() - began <= 2 + 0.1


# The local service's health


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_a_new_server_is_told_when_the_local_service_is_not_well(
    autojump_clock, server: FakeServer, is_healthy: bool
) -> None:
    asked = [Register(stream_header=True, health=True), Register(id="1", stream_header=True, health=True)]
    async with linked(server, *asked) as (_, tunnel):
        tell = tunnel._reported(HealthCheck("/healthz")).tell
        tell(False)
        tell(is_healthy)
        await trio.sleep(1)
        told = {"type": "health", "id": "1", "healthy": is_healthy}
        assert server.ends[0].healths == [told]
        await server.ends[0].drop()
        end = await server.wait_for_session(1)
        await trio.sleep(1)
        assert end.healths == ([] if is_healthy else [told])


async def test_a_new_server_that_does_not_know_of_health_is_told_nothing(autojump_clock, server: FakeServer) -> None:
    async with linked(server, Register(health=True)) as (tunnel,):
        tell = tunnel._reported(HealthCheck("/healthz")).tell
        server.answer = lambda request: grant(request) | {"health": False}
        await server.ends[0].drop()
        end = await server.wait_for_session(1)
        tell(False)
        await trio.sleep(1)
        assert end.healths == []


# A server that goes away


async def test_a_draining_server_loses_no_visitor_and_is_replaced_at_once(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        await trio.sleep(HEALTHY_AFTER)
        (old,) = server.ends
        visitor = await old.session.open_stream()
        await visitor.send_all(b"slow")
        stream = await tunnel.accept()
        began = trio.current_time()
        old.session.go_away()
        new = await server.wait_for_session(1)
        assert trio.current_time() - began < 0.5
        await next_visitor(tunnel, new, b"new")
        await trio.sleep(600)
        assert await stream.receive_some() == b"slow"
        await stream.send_all(b"done")
        assert await visitor.receive_some() == b"done"
        await visitor.aclose()
        await stream.aclose()
        await trio.sleep(60)
        await next_visitor(tunnel, old, b"somebody who has been there before, and asks again")
    assert len(server.attempts) == 2


@pytest.mark.parametrize("says_why", [True, False])
async def test_the_end_of_a_session_that_was_replaced_is_no_loss(
    autojump_clock, server: FakeServer, says_why: bool
) -> None:
    async with linked(server) as (tunnel,):
        (old,) = server.ends
        old.session.go_away()
        new = await server.wait_for_session(1)
        events = tunnel.events()
        if says_why:
            await old.say(error("server_ending", retryable=True))
        await old.session.aclose()
        await trio.sleep(1000)
        assert "open" in repr(tunnel)
        await next_visitor(tunnel, new, b"hello")
        await tunnel.aclose()
        assert [type(event) async for event in events] == [Connected]
    assert len(server.attempts) == 2


async def test_a_server_that_goes_away_and_is_alone_is_asked_again_and_serves_on(
    autojump_clock, server: FakeServer
) -> None:
    async with linked(server) as (tunnel,):
        (old,) = server.ends
        server.answer = lambda _: error("server_ending", retryable=True)
        old.session.go_away()
        await trio.sleep(60)
        assert server.delays[-1] == MAX_DELAY
        await next_visitor(tunnel, old, b"while it lasts")
        server.problem = UNREACHABLE
        await old.session.aclose()
        await trio.sleep(60)
        server.problem, server.answer = None, grant
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")


async def test_servers_that_go_away_one_after_the_other_do_not_pile_up(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        visitors = []
        for number in range(MAX_SESSIONS):
            end = await server.wait_for_session(number)
            await end.session.open_stream()
            visitors.append(await tunnel.accept())
            end.session.go_away()
        newest = await server.wait_for_session(MAX_SESSIONS)
        first, *others = visitors
        with trio.fail_after(1), pytest.raises(SessionClosed):
            await first.receive_some()
        for end, stream in zip(server.ends[1:], others, strict=False):
            assert not end.session.is_closed
            await stream.send_all(b"here")
        await next_visitor(tunnel, newest, b"new")


# Visitors of a session that is lost


async def test_visitors_of_a_lost_session_see_that_it_is_lost(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        await server.ends[0].session.open_stream()
        stream = await tunnel.accept()
        await server.ends[0].drop()
        with pytest.raises(SessionClosed):
            await stream.receive_some()
        await next_visitor(tunnel, await server.wait_for_session(1), b"next")


async def test_visitors_whom_nobody_has_accepted_are_lost_with_their_session(
    autojump_clock, server: FakeServer
) -> None:
    async with linked(server) as (tunnel,):
        for number in range(5):
            end = await server.wait_for_session(number)
            for _ in range(200):
                await end.session.open_stream()
            await end.session.ping()
            await end.drop()
        await next_visitor(tunnel, await server.wait_for_session(5), b"next")
        assert not tunnel._lease.visitors._unaccepted


# Ending it


Closing = Callable[[Tunnel], Awaitable[None]]


@pytest.mark.parametrize("close", [Tunnel.aclose, Tunnel.drain], ids=["aclose", "drain"])
async def test_closing_while_there_is_no_session_ends_the_search(
    autojump_clock, server: FakeServer, close: Closing
) -> None:
    async with linked(server) as (tunnel,):
        server.problem = UNREACHABLE
        await server.ends[0].drop()
        await trio.sleep(LONG_OUTAGE)
        began = trio.current_time()
        await close(tunnel)
        assert trio.current_time() == began
        assert str(await see_end(tunnel)) == "the session was closed on this side"
        assert not isinstance([event async for event in tunnel.events()][-1], Refused)


async def test_a_drained_tunnel_lets_visitors_finish_and_takes_no_more(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:
        (end,) = server.ends
        visitor = await end.session.open_stream()
        stream = await tunnel.accept()
        nursery.start_soon(tunnel.drain)
        await end.session.wait_peer_left()
        with pytest.raises(SessionClosed):
            await end.session.open_stream()
        await trio.sleep(1000)
        await stream.send_all(b"done")
        await stream.aclose()
        assert await visitor.receive_some() == b"done"
        await visitor.aclose()
    assert len(server.attempts) == 1


async def test_who_is_on_the_way_when_a_tunnel_is_drained_is_served(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:
        visitor = await server.ends[0].session.open_stream()
        nursery.start_soon(tunnel.drain)
        stream = await tunnel.accept()
        await stream.send_all(b"hello")
        await stream.aclose()
        assert await visitor.receive_some() == b"hello"
        await visitor.aclose()


async def test_a_drain_that_is_cancelled_ends_the_tunnel_at_once(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,):
        await server.ends[0].session.open_stream()
        stream = await tunnel.accept()
        began = trio.current_time()
        with trio.move_on_after(30):
            await tunnel.drain()
        assert trio.current_time() - began == 30
        with pytest.raises(SessionClosed):
            await stream.receive_some()
        await see_end(tunnel)


async def test_a_session_that_is_lost_while_it_drains_is_not_replaced(autojump_clock, server: FakeServer) -> None:
    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:
        await server.ends[0].session.open_stream()
        await tunnel.accept()
        nursery.start_soon(tunnel.drain)
        await trio.sleep(1)
        await server.ends[0].drop()
    assert len(server.attempts) == 1


# Events


async def test_events_tell_what_has_happened(autojump_clock, server: FakeServer) -> None:
    seen: list[TunnelEvent] = []

    async def read(tunnel: Tunnel) -> None:
        async for event in tunnel.events():
            seen.append(event)

    async with linked(server) as (tunnel,), trio.open_nursery() as nursery:
        nursery.start_soon(read, tunnel)
        await trio.sleep(HEALTHY_AFTER)
        server.problem = UNREACHABLE
        await server.ends[0].drop()
        await trio.sleep(0.3)
        server.problem = None
        end = await server.wait_for_session(1)
        await end.say(error("kicked"))
    reason = "lost the server at server.example:4443: it closed the connection"
    assert seen[:5] == [
        Connected("http://app.server.example"),
        Lost(reason),
        Retrying(0.2, 1, reason),
        Retrying(0.4, 2, str(UNREACHABLE)),
        Connected("http://app.server.example"),
    ]
    assert isinstance(seen[5], Lost)
    assert isinstance(seen[6], Refused)
    assert isinstance(seen[6].error, TunnelEnded)
    assert len(seen) == 7


async def test_readers_are_independent_and_slow_ones_lose_the_oldest(autojump_clock, server: FakeServer) -> None:
    async with linked(server, max_retries=3 * EVENTS_KEPT) as (tunnel,):
        early = tunnel.events()
        server.problem = UNREACHABLE
        await server.ends[0].drop()
        await see_end(tunnel)
        late = [event async for event in early]
        assert len(late) == EVENTS_KEPT
        assert isinstance(late[-1], Refused)
        assert [event.attempt for event in late[:-1] if isinstance(event, Retrying)][-1] == 3 * EVENTS_KEPT
        assert [event async for event in tunnel.events()] == late[-1:]


async def test_a_long_outage_does_not_flood_the_log(
    autojump_clock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otun.client.link")
    async with linked(server) as (tunnel,):
        server.problem = UNREACHABLE
        await server.ends[0].drop()
        await trio.sleep(6 * 3600)
        server.problem = None
        await next_visitor(tunnel, await server.wait_for_session(1), b"hello")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "lost the server at server.example:4443: it closed the connection; retrying in 0.2 s"
    assert lines[1] == f"{UNREACHABLE}; retrying in 0.4 s (attempt 2)"
    assert lines[-1] == "connected again: http://app.server.example"
    assert len(lines) < 20 < len(server.attempts)
