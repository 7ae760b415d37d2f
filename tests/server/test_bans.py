"""Banned networks: who is turned away, and who is cut off."""

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
import trio
import trio.testing

from otun import Stream, TcpAddress, open_session
from otun.server import bans as bans_module
from otun.server import queries
from otun.server.bans import Bans, check_banned_network
from otun.server.database import Database, open_database
from otun.server.queries import TooManyBans
from otun.server.records import Ban
from otun.tls.contexts import CONTROL_PROTOCOL

from ..tls.hello_wire import hello, sni
from .certificates import connect_tls, visiting
from .edges import NAME, Edge, StartEdge
from .harness import RunningServer
from .raw_client import RawClient, raw_client
from .stored_tokens import SOMEBODY, details
from .visitors import parse, receive_all, receive_exactly, receive_until_reset, request

BANNED = "127.0.0.2"
"""Another address of this machine: where those come from who are banned."""

HELLO = hello(sni(b"app.tunnel.example"))

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
UNFINISHED = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.following.POLL_INTERVAL", 0.01)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """What another process has to do with the server's database."""
    async with open_database(tmp_path / "state") as database:
        yield database


async def ban(database: Database, network: str = BANNED, until: int | None = None) -> None:
    await database.write(queries.ban, Ban(network, "spam", until), SOMEBODY, 1000)


@pytest.fixture
async def start(start_edge: StartEdge, tmp_path: Path, database: Database) -> Callable[..., object]:
    async def start_with_state(**changes: object) -> Edge:
        return await start_edge(state=tmp_path / "state", **changes)

    return start_with_state


@asynccontextmanager
async def coming_from(host: str, address: TcpAddress) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream(address.host, address.port, local_address=host) as visitor:
        yield visitor


async def is_turned_away(address: TcpAddress, sent: bytes = b"", host: str = BANNED) -> bool:
    """Whether the connection ends without a word."""
    try:
        async with coming_from(host, address) as visitor:
            await visitor.send_all(sent)
            return not await visitor.receive_some()
    except trio.BrokenResourceError:
        return True


async def answer(stream: Stream) -> None:
    """Answer requests and everything else; one for /slow is never whole."""
    with suppress(trio.BrokenResourceError):
        while received := await stream.receive_some():
            await stream.send_all(UNFINISHED if received.startswith(b"GET /slow") else ANSWER)
        await stream.send_eof()


@asynccontextmanager
async def serving(server: RunningServer | Edge, **fields: object) -> AsyncIterator[tuple[RawClient, TcpAddress]]:
    """A client with the tunnel `app`, and the address of its port if it has one."""
    async with trio.open_nursery() as nursery, raw_client(server.control) as client:
        granted = await client.register("app", **fields)
        assert granted["type"] == "registered", granted
        nursery.start_soon(client.serve, answer)
        port = int(str(granted["url"]).rpartition(":")[2]) if fields.get("kind") == "tcp" else 0
        yield client, TcpAddress("127.0.0.1", port)


async def test_visitors_of_every_port_are_turned_away(start, database: Database) -> None:
    await ban(database)
    edge = await start()
    async with serving(edge, kind="tcp") as (_, tcp), raw_client(edge.control) as client:
        await client.register("app")
        for address in (edge.public, edge.https, tcp, edge.control):
            assert await is_turned_away(address, request(host=NAME))
        async with coming_from("127.0.0.3", tcp) as visitor:
            await visitor.send_all(b"hello")
            assert (await receive_exactly(visitor, len(ANSWER))).endswith(b"hello")
        assert edge.visitors == 0


async def test_what_is_turned_away_fills_no_log(start, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await ban(database)
    edge = await start()
    for _ in range(150):
        assert await is_turned_away(edge.public)
    lines = [record.getMessage() for record in caplog.records if "banned" in record.getMessage()]
    assert 100 <= len(lines) < 130
    assert lines[0].startswith(f"stranger {BANNED}:")
    assert lines[0].endswith(": turned away: its network is banned")


@pytest.mark.parametrize("port", ["public", "https"])
async def test_whom_a_proxy_speaks_for_is_turned_away(start, database: Database, port: str) -> None:
    await ban(database, "192.0.2.0/24")
    edge = await start(trusted_proxies=(ip_network("127.0.0.1"),))
    address = getattr(edge, port)
    assert await is_turned_away(address, b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 80\r\n" + HELLO, host="127.0.0.1")
    assert await is_turned_away(
        address, b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.1 4711 80\r\n" + HELLO, host="127.0.0.1"
    )
    await edge.see_nobody()


async def test_whom_a_request_is_forwarded_for_gets_a_page(start, database: Database) -> None:
    await ban(database, "192.0.2.0/24")
    edge = await start(trusted_proxies=(ip_network("127.0.0.1"),), redirect=False)
    async with serving(edge):
        async with coming_from("127.0.0.1", edge.public) as proxy:
            for good in ("X-Forwarded-For: 192.0.2.1, 198.51.100.1", "X-Other: 192.0.2.1"):
                await proxy.send_all(request("/", good, host=NAME))
                assert (await receive_exactly(proxy, len(ANSWER))).endswith(b"hello")
            await proxy.send_all(request("/", "X-Forwarded-For: 198.51.100.1, 192.0.2.1", host=NAME))
            page = parse(await receive_all(proxy))
            assert (page.status, page.fields["Otun-Error"]) == (403, "banned")
        async with coming_from("127.0.0.3", edge.public) as stranger:  # Who is believed nothing.
            await stranger.send_all(request("/", "X-Forwarded-For: 192.0.2.1", host=NAME))
            assert (await receive_exactly(stranger, len(ANSWER))).endswith(b"hello")


async def test_visitors_who_are_there_are_cut_off(start, database: Database) -> None:
    edge = await start(redirect=False)
    async with serving(edge, kind="tcp") as (_, tcp), serving(edge), trio.open_nursery() as nursery:

        async def see_end(host: str, address: TcpAddress, sent: bytes, task_status: trio.TaskStatus[None]) -> None:
            async with coming_from(host, address) as visitor:
                if sent:
                    await visitor.send_all(sent)
                    assert (await receive_exactly(visitor, len(ANSWER))).endswith(b"hello")
                task_status.started()
                assert await receive_until_reset(visitor) == b""

        idle, slow = request(host=NAME), request("/slow", host=NAME)
        await nursery.start(see_end, BANNED, edge.public, idle)
        await nursery.start(see_end, BANNED, edge.public, slow)
        await nursery.start(see_end, BANNED, tcp, b"hello")
        await nursery.start(see_end, BANNED, edge.https, b"")
        await nursery.start(see_end, BANNED, edge.control, b"")
        async with coming_from("127.0.0.3", edge.public) as other:
            for _ in range(2):
                await other.send_all(idle)
                assert (await receive_exactly(other, len(ANSWER))).endswith(b"hello")
                await ban(database)
        assert await is_turned_away(edge.public)
    await edge.see_nobody()


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_visitor_who_has_switched_protocols_is_cut_off(start, database: Database, forwarded: bool) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
    trusted = (ip_network("127.0.0.1"),) if forwarded else ()
    edge = await start(redirect=False, trusted_proxies=trusted)

    async def switch(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(switching)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        is_over.set()

    is_over = trio.Event()
    async with trio.open_nursery() as nursery, raw_client(edge.control) as client:
        await client.register("app")
        nursery.start_soon(client.serve, switch)
        async with coming_from("127.0.0.1" if forwarded else BANNED, edge.public) as visitor:
            fields = ("Connection: Upgrade", "Upgrade: chat", f"X-Forwarded-For: {BANNED}")
            await visitor.send_all(request("/", *fields, host=NAME))
            await receive_exactly(visitor, len(switching))
            await ban(database)
            await receive_until_reset(visitor)
        await is_over.wait()


async def test_a_request_on_its_way_for_whom_a_proxy_speaks_is_cut_off(start, database: Database) -> None:
    edge = await start(redirect=False, trusted_proxies=(ip_network("127.0.0.1"),))
    async with serving(edge), coming_from("127.0.0.1", edge.public) as proxy:
        await proxy.send_all(request("/slow", "X-Forwarded-For: 192.0.2.1", host=NAME))
        assert (await receive_exactly(proxy, len(ANSWER))).endswith(b"hello")
        await ban(database, "192.0.2.1")
        assert await receive_until_reset(proxy) == b""


async def test_a_visitor_of_tls_that_passes_through_is_cut_off(start, database: Database) -> None:
    edge = await start()
    async with serving(edge, kind="tls"), coming_from(BANNED, edge.https) as visitor:
        await visitor.send_all(hello(sni(NAME.encode())))
        assert (await receive_exactly(visitor, len(ANSWER))).endswith(b"hello")
        await ban(database)
        assert await receive_until_reset(visitor) == b""


async def test_a_client_that_is_there_is_told(start, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = await start()

    async def from_there(host: str, port: int) -> trio.SocketStream:
        return await connect(host, port, local_address=BANNED)

    connect = trio.open_tcp_stream
    async with raw_client(edge.control) as other:
        await other.register("other")
        monkeypatch.setattr("trio.open_tcp_stream", from_there)
        async with raw_client(edge.control) as client, raw_client(edge.control) as late:
            await client.register("app")
            await ban(database)
            farewell = await client.hear_farewell()
            assert (farewell["code"], farewell.get("retryable", False)) == ("banned", False)
            await late.say({"type": "register", "subdomain": "app"})
            assert (await late.hear_farewell())["code"] == "banned"
        await other.say({"type": "heartbeat"})
        assert (await other.hear())["type"] == "heartbeat_ack"


async def test_a_ban_that_is_lifted_elsewhere_is_lifted(start, database: Database) -> None:
    await ban(database)
    edge = await start(redirect=False)
    async with serving(edge):
        assert await is_turned_away(edge.public)
        await database.write(queries.unban, BANNED, SOMEBODY, 1000)
        while await is_turned_away(edge.public, request(host=NAME)):
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_an_encrypted_visitor_is_cut_off(start, database: Database) -> None:
    edge = await start()
    async with serving(edge), visiting(edge.https, edge.context, NAME) as visitor:
        await visitor.send_all(request(host=NAME))
        assert (await receive_exactly(visitor, len(ANSWER))).endswith(b"hello")
        await ban(database, "127.0.0.1")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()


@pytest.mark.parametrize("port", ["public", "https"])
async def test_whom_a_proxy_speaks_for_is_cut_off(start, database: Database, port: str) -> None:
    edge = await start(redirect=False, trusted_proxies=(ip_network("127.0.0.1"),))
    header = b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 80\r\n"
    async with serving(edge), AsyncExitStack() as stack:
        if port == "https":
            visitor = await stack.enter_async_context(edge.visiting(before=header))
        else:
            visitor = await stack.enter_async_context(coming_from("127.0.0.1", edge.public))
            await visitor.send_all(header)
        await visitor.send_all(request(host=NAME))
        assert (await receive_exactly(visitor, len(ANSWER))).endswith(b"hello")
        await ban(database, "192.0.2.0/24")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()


async def test_a_client_for_whom_a_proxy_speaks_is_told(start, database: Database) -> None:
    edge = await start(trusted_proxies=(ip_network("127.0.0.1"),))
    context = edge.context
    context.set_alpn_protocols([CONTROL_PROTOCOL])
    header = b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 80\r\n"
    stream = await connect_tls(edge.https, context, NAME, before=header)
    async with open_session(stream, "client") as session:
        client = RawClient(session, stream, await session.open_stream())
        assert (await client.register("app"))["type"] == "registered"
        await ban(database, "192.0.2.1")
        assert (await client.hear_farewell())["code"] == "banned"


async def test_who_is_banned_in_the_middle_of_the_handshake_is_not_served(start, database: Database) -> None:
    edge = await start()
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = edge.context.wrap_bio(received, sent, server_hostname=NAME)
    async with serving(edge), coming_from(BANNED, edge.https) as visitor:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await visitor.send_all(sent.read())
        while True:
            received.write(await visitor.receive_some())
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
        await ban(database)
        while not await is_turned_away(edge.public, request(host=NAME)):
            await trio.testing.wait_all_tasks_blocked(0.001)
        tls.write(request(host=NAME))
        await visitor.send_all(sent.read())
        answer = b""
        with suppress(trio.BrokenResourceError):
            async for piece in visitor:
                received.write(piece)
        with suppress(ssl.SSLError):
            answer = tls.read()
        assert answer == b""
    await edge.see_nobody()


# Bans by themselves


async def test_a_ban_runs_out_by_itself(database: Database) -> None:
    now = 1000.0
    await ban(database, until=1010)
    bans = Bans(database, clock=lambda: now)
    await bans.load()
    await bans.add(Ban("192.0.2.0/24", "", 1020), SOMEBODY)
    for moment, expected in ((1009.9, (True, True)), (1010, (False, True)), (1020, (False, False))):
        now = moment
        assert (bans.covers(BANNED), bans.covers("192.0.2.1")) == expected
        assert len(bans.in_force()) == sum(expected)


async def test_only_those_who_are_newly_banned_are_looked_for(database: Database) -> None:
    told: list[Callable[[str], bool]] = []
    bans = Bans(database, clock=lambda: 1000)
    await ban(database)
    bans.tell(told.append)
    await bans.load()
    await bans.load()
    await bans.add(Ban("192.0.2.0/24", ""), SOMEBODY)
    await bans.load()
    assert [(is_banned(BANNED), is_banned("192.0.2.1")) for is_banned in told] == [(True, False), (False, True)]
    assert await bans.remove(BANNED, SOMEBODY)
    assert not await bans.remove(BANNED, SOMEBODY)
    assert not bans.covers(BANNED)
    assert len(told) == 2


async def test_a_ban_counts_without_a_disk_to_write_to(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    bans = Bans(database, clock=lambda: 1000)
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
    long = "x" * 9000
    caplog.set_level(logging.ERROR)
    assert not await bans.add(Ban(BANNED, long), SOMEBODY)
    assert caplog.messages == [
        f"ann (uid 1000) has banned {BANNED}, for as long as the server runs: "
        f"database {database.path}: No space left on device"
    ]
    await bans.load()
    assert bans.covers(BANNED)
    assert [one.network for one in bans.in_force()] == [BANNED]
    assert await bans.remove(BANNED, SOMEBODY)
    assert not bans.covers(BANNED)
    assert await details(database) == []


async def test_there_are_only_so_many_bans(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (queries, bans_module):
        monkeypatch.setattr(module, "MAX_BANS", 2)
    now = 1000.0
    bans = Bans(database, clock=lambda: now)
    await bans.add(Ban("192.0.2.1/32", "", 1500), SOMEBODY)
    await ban(database, "192.0.2.2/32")  # It does not know of this one.
    with pytest.raises(TooManyBans, match=r"^there are 2 bans already|^there are 10000 bans already"):
        await bans.add(Ban("192.0.2.3/32", ""), SOMEBODY)
    assert not bans.covers("192.0.2.3")
    await bans.load()
    with pytest.raises(TooManyBans):
        await bans.add(Ban("192.0.2.3/32", ""), SOMEBODY)
    await bans.add(Ban("192.0.2.1/32", "other", 1600), SOMEBODY)
    now = 1600
    assert await bans.add(Ban("192.0.2.3/32", ""), SOMEBODY)
    assert [one.network for one in bans.in_force()] == ["192.0.2.2/32", "192.0.2.3/32"]


async def test_what_somebody_has_written_into_the_database_by_hand_harms_nobody(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for network in ("nonsense", BANNED):
        await ban(database, network)
    bans = Bans(database, clock=lambda: 1000)
    await bans.load()
    await bans.load()
    assert bans.covers(BANNED)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "'nonsense'" in caplog.text
    assert await bans.remove("nonsense", SOMEBODY)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "127.0.0.1", "::1", "0.0.0.0/1", "::ffff:127.0.0.1"])
def test_whoever_would_ban_himself_is_asked(text: str) -> None:
    with pytest.raises(Exception, match=r"to ban that all the same, use --force$") as caught:
        check_banned_network(text)
    assert str(caught.value).isprintable()
    assert check_banned_network(text, is_forced=True)


async def test_commands_at_once_for_which_there_is_no_room_leave_no_ban(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_BANS", 0)  # Another process has been faster.
    bans = Bans(database)
    refused = []

    async def add(reason: str) -> None:
        try:
            await bans.add(Ban(BANNED, reason), SOMEBODY)
        except TooManyBans:
            refused.append(reason)

    async with trio.open_nursery() as nursery:
        for reason in ("one", "another", "a third"):
            nursery.start_soon(add, reason)
    assert len(refused) == 3
    assert not bans.covers(BANNED)
    assert bans.in_force() == []
