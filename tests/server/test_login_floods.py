"""A thousand wrong log-ins: what they cost is bounded, and others are served."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
import trio

from otun.access import failures
from otun.server import visitor_access

from .checking import Accesses, Checks, authorization, cheap_login, wait_until
from .conversation import conversation, tenant
from .harness import RunningServer
from .visitors import connect, fetch, receive_answer, request

FLOOD = 1000
AT_ONCE = 100

ANN = cheap_login("ann", "s3cret")
GOOD = authorization("ann", "s3cret")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    watched = Checks.watch(monkeypatch)
    yield watched
    watched.let_go()


@pytest.fixture
def accesses(monkeypatch: pytest.MonkeyPatch) -> Accesses:
    watched = Accesses()
    watched.watch(monkeypatch)
    return watched


@pytest.fixture
async def server(start_server, accesses: Accesses, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """A server to which every visitor is a proxy, so that one machine can be many addresses."""
    monkeypatch.setattr(failures, "DELAY", 0.001)
    return await start_server(trusted_proxies=(ip_network("127.0.0.0/8"),))


async def flood(server: RunningServer, addresses: int) -> Counter[int]:
    """Log in wrongly a thousand times, from so many addresses; what the answers were."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(FLOOD))

    async def attack() -> None:
        for number in numbers:
            source = number % addresses
            fields = f"X-Forwarded-For: 192.0.{source >> 8}.{source & 255}", authorization("ann", f"guess {number}")
            statuses[(await fetch(server.public, "/", *fields)).status] += 1

    async with trio.open_nursery() as attackers:
        for _ in range(AT_ONCE):
            attackers.start_soon(attack)
    return statuses


async def test_from_one_address_few_are_looked_at(server: RunningServer, checks: Checks, accesses: Accesses) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]) as app, conversation(server.public) as known:
        assert (await known.ask("/", GOOD, "X-Forwarded-For: 192.0.0.0")).status == 200
        statuses = await flood(server, 1)
        assert set(statuses) == {401, 429}
        assert statuses[401] == len(checks.passwords) - 1 <= failures.MAX_FAILURES
        assert checks.most_running <= visitor_access.THREADS
        assert accesses.remembered == (1, 1, 0)
        assert accesses.waiting == 0
        # The one from the same address who is logged in does not notice, nor does anybody else.
        assert (await known.ask("/", GOOD, "X-Forwarded-For: 192.0.0.0")).status == 200
        assert (await fetch(server.public, "/", GOOD, "X-Forwarded-For: 198.51.100.1")).status == 200
        assert len(app.heads) == 3


async def test_from_many_addresses_only_so_many_wait_and_others_are_served(
    server: RunningServer, checks: Checks, accesses: Accesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MAX_SOURCES", 200)
    users = [f"user{number}" for number in range(32)]
    async with (
        tenant(server.control, "app", basic_auth=[ANN]),
        tenant(server.control, "other", basic_auth=[cheap_login(user, "s3cret") for user in users]),
        tenant(server.control, "open"),
        conversation(server.public) as known,
        trio.open_nursery() as nursery,
    ):
        assert (await known.ask("/", GOOD)).status == 200
        most = logged_in = 0
        statuses: list[Counter[int]] = []

        async def attack() -> None:
            statuses.append(await flood(server, FLOOD))

        nursery.start_soon(attack)
        while not statuses:
            most = max(most, accesses.waiting)
            assert (await known.ask("/", GOOD)).status == 200
            assert (await fetch(server.public, host="open.localhost")).status == 200
            # A tunnel that is not attacked has room for log-ins.
            field = authorization(users[logged_in % 32], "s3cret")
            assert (await fetch(server.public, "/", field, host="other.localhost")).status == 200
            logged_in += 1
        assert most <= visitor_access.MAX_WAITING_FOR_ONE + 1
        assert set(statuses[0]) <= {401, 503}
        assert statuses[0][401] > 100
        assert checks.most_running <= visitor_access.THREADS
        remembered, known_logins, pending = accesses.remembered
        assert remembered <= 200
        assert (known_logins, pending) == (1 + min(logged_in, 32), 0)


async def test_those_beyond_the_queue_are_told_to_come_again(
    server: RunningServer, checks: Checks, accesses: Accesses
) -> None:
    checks.hold()
    limit = visitor_access.MAX_WAITING_FOR_ONE
    async with tenant(server.control, "app", basic_auth=[ANN]), trio.open_nursery() as nursery:
        statuses: Counter[int] = Counter()

        async def guess(number: int) -> None:
            fields = f"X-Forwarded-For: 192.0.2.{number}", authorization("ann", str(number))
            statuses[(await fetch(server.public, "/", *fields)).status] += 1

        for number in range(limit):
            nursery.start_soon(guess, number)
        await wait_until(lambda: accesses.waiting == limit, lambda: fetch(server.public))
        answer = await fetch(server.public, "/", authorization("ann", "one more"))
        assert (answer.status, answer.fields["Otun-Error"]) == (503, "busy")
        assert int(answer.fields["Retry-After"]) > 0
        checks.let_go()
    assert statuses == {401: limit}
    assert accesses.waiting == 0
    assert accesses.remembered == (limit, 0, 0)


async def test_those_who_have_probably_left_make_room(
    server: RunningServer, checks: Checks, accesses: Accesses
) -> None:
    checks.hold()
    limit = visitor_access.MAX_WAITING_FOR_ONE
    async with tenant(server.control, "app", basic_auth=[ANN]):
        visitors = []
        for number in range(limit):
            visitors.append(await connect(server.public))
            fields = f"X-Forwarded-For: 192.0.2.{number}", authorization("ann", str(number))
            await visitors[-1].send_all(request("/", *fields))
        await wait_until(lambda: accesses.waiting == limit, lambda: fetch(server.public))
        await visitors[10].send_eof()
        for _ in range(5):
            await fetch(server.public)
        async with await connect(server.public) as newcomer:
            await newcomer.send_all(request("/", GOOD))
            assert (await receive_answer(visitors[10])).status == 503
            assert (await fetch(server.public, "/", authorization("ann", "x"))).status == 503
            checks.let_go()
            assert (await receive_answer(newcomer)).status == 200
        assert "10" not in checks.passwords
        for visitor in visitors:
            await visitor.aclose()


async def test_one_address_waits_with_few_passwords_at_a_time(
    server: RunningServer, checks: Checks, accesses: Accesses
) -> None:
    checks.hold()
    async with tenant(server.control, "app", basic_auth=[ANN]), trio.open_nursery() as nursery:
        statuses: Counter[int] = Counter()

        async def guess(number: int) -> None:
            statuses[(await fetch(server.public, "/", authorization("ann", str(number)))).status] += 1

        for number in range(30):
            nursery.start_soon(guess, number)
        await wait_until(lambda: statuses[429] == 30 - failures.MAX_FAILURES, lambda: fetch(server.public))
        assert accesses.waiting == failures.MAX_FAILURES
        checks.let_go()
    assert statuses == {401: failures.MAX_FAILURES, 429: 30 - failures.MAX_FAILURES}


async def test_a_network_of_ipv6_is_one_address(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        statuses = Counter()
        for number in range(2 * failures.MAX_FAILURES):
            fields = f"X-Forwarded-For: 2001:db8::{number:x}", authorization("ann", str(number))
            statuses[(await fetch(server.public, "/", *fields)).status] += 1
        assert statuses == {401: failures.MAX_FAILURES, 429: failures.MAX_FAILURES}


async def test_a_tunnel_that_comes_back_remembers_who_has_failed(server: RunningServer, checks: Checks) -> None:
    for _ in range(2):
        async with tenant(server.control, "app", basic_auth=[ANN]):
            for number in range(failures.MAX_FAILURES):
                await fetch(server.public, "/", authorization("ann", str(number)))
    assert len(checks.passwords) == failures.MAX_FAILURES


async def test_a_server_that_ends_does_not_wait_for_checks(server: RunningServer, checks: Checks) -> None:
    checks.hold()
    async with await connect(server.public) as visitor:
        async with tenant(server.control, "app", basic_auth=[ANN]):
            await visitor.send_all(request("/", GOOD))
            await wait_until(lambda: checks.running == 1, lambda: fetch(server.public))
        await server.stop()
        checks.let_go()
