"""Names belong to whoever took them first, connected or not."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from otun import RegistrationRefused, open_tunnel
from otun.access import Identity
from otun.errors import DatabaseError
from otun.server import queries
from otun.server.admission import Refused
from otun.server.database import Database, open_database
from otun.server.records import Reservation
from otun.server.reservations import MAX_AT_ONCE, Key, Reservations

from .conversation import tenant
from .harness import TCP_PORTS, RunningServer
from .raw_client import raw_client
from .stored_tokens import SOMEBODY, details, raw
from .visitors import fetch

PORT: Final = TCP_PORTS[60]

Start = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
def engine() -> None:
    """Any: who has which name does not depend on how bytes are moved."""


@pytest.fixture
def start(start_server, tmp_path: Path) -> Start:
    """Start a server on the same folder as before, for ann and for bob."""

    async def start(**changes: object) -> RunningServer:
        settings = {"domain": "tunnel.test", "allow_hostnames": ("*.example.org",), "tokens": frozenset({"ann", "bob"})}
        return await start_server(state=tmp_path, **(settings | changes))

    return start


async def ask(server: RunningServer, token: str | None, name: str | None = None, **fields: object) -> dict[str, object]:
    """Ask for a tunnel on a session of its own, which ends with the answer."""
    async with raw_client(server.control) as client:
        return await client.register(name, token=token, **fields)


async def take(server: RunningServer, token: str | None, name: str | None = None, **fields: object) -> str:
    """Take a tunnel, and leave; its name."""
    answer = await ask(server, token, name, **fields)
    while answer.get("code") in ("name_taken", "port_taken") and answer.get("retryable"):  # The one before is leaving.
        answer = await ask(server, token, name, **fields)
    assert answer["type"] == "registered", answer
    return str(answer["subdomain"])


async def see_reserved(server: RunningServer, token: str | None, name: str | None, **fields: object) -> None:
    """See that somebody else has it, for good as far as this one is concerned."""
    answer = await ask(server, token, name, **fields)
    while answer.get("retryable"):  # Its owner is leaving.
        answer = await ask(server, token, name, **fields)
    code = "port_taken" if fields.get("kind") == "tcp" else "name_taken"
    assert (answer["type"], answer.get("code"), answer.get("retryable", False)) == ("error", code, False), answer
    assert not any(word in str(answer["message"]) for word in ("ann", "(key"))


THINGS: Final = [
    ("app", {}),
    ("app", {"path": "/api"}),
    ("x", {"hostnames": ["shop.example.org"]}),
    (None, {"kind": "tcp", "remote_port": PORT}),
]


@pytest.mark.parametrize(("name", "fields"), THINGS, ids=["name", "path", "hostname", "port"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["", "after a restart"])
async def test_whoever_took_it_first_has_it_and_nobody_else_while_they_are_away(
    start: Start, name: str | None, fields: dict[str, object], is_restarted: bool
) -> None:
    server = await start()
    await take(server, "ann", name, **fields)
    if is_restarted:
        await server.stop()
        server = await start()
    own = "y" if "hostnames" in fields else name
    await see_reserved(server, "bob", own, **fields)
    await take(server, "ann", name, **fields)


async def test_a_name_is_reserved_for_all_kinds_of_tunnels_and_all_paths(start: Start) -> None:
    server = await start()
    await take(server, "ann", "app")
    await see_reserved(server, "bob", "app", path="/api")
    await see_reserved(server, "bob", "APP")
    await take(server, "bob", "app2", hostnames=["a.app2.tunnel.test"])


async def test_while_its_owner_is_there_others_are_told_that_it_is_reserved_and_nothing_else(start: Start) -> None:
    server = await start()
    async with raw_client(server.control) as owner:
        await owner.register("app", token="ann", hostnames=["shop.example.org"])
        await owner.register(None, token="ann", id="1", kind="tcp", remote_port=PORT)
        for name, fields in [("app", {}), ("x", {"hostnames": ["shop.example.org"]}), THINGS[-1]]:
            answer = await ask(server, "bob", name, **fields)
            assert (answer["code"], answer.get("retryable", False)) == (
                "port_taken" if name is None else "name_taken",
                False,
            ), answer


async def test_what_a_wildcard_stands_for_is_reserved_with_it(start: Start) -> None:
    server = await start()
    await take(server, "ann", "x", hostnames=["*.shop.example.org"])
    for host in ("a.shop.example.org", "a.b.shop.example.org", "*.b.shop.example.org", "*.shop.example.org"):
        await see_reserved(server, "bob", "y", hostnames=[host])
    await take(server, "bob", "y", hostnames=["shop.example.org", "xshop.example.org"])
    await take(server, "ann", "z", hostnames=["a.shop.example.org"])


@pytest.mark.parametrize("host", ["shop.example.org", "*.shop.example.org"])
async def test_a_wildcard_above_does_not_keep_whoever_was_first_from_coming_back(start: Start, host: str) -> None:
    server = await start()
    await take(server, "ann", "x", hostnames=[host])
    async with raw_client(server.control) as client:
        assert (await client.register("y", token="bob", hostnames=["*.example.org"]))["type"] == "registered"
        await take(server, "ann", "x", hostnames=[host])
        await see_reserved(server, "bob", "z", hostnames=[host])
        answer = await ask(server, "ann", "x", hostnames=[f"new.{host.removeprefix('*.')}"])
        assert (answer["type"] == "registered") == host.startswith("*."), answer


async def test_a_wildcard_does_not_lead_to_names_that_are_kept_for_somebody_else(start: Start) -> None:
    server = await start()
    await take(server, "ann", "x", hostnames=["shop.example.org", "*.ann.example.org"])
    async with tenant(server.control, "y", token="bob", hostnames=["*.example.org", "*.y.tunnel.test"]):
        hosts = ["shop.example.org", "Shop.example.org.", "a.ann.example.org"]
        assert [(await fetch(server.public, host=host)).status for host in hosts] == [404] * 3
        hosts = ["a.example.org", "a.shop.example.org", "ann.example.org", "a.y.tunnel.test"]
        assert [(await fetch(server.public, host=host)).status for host in hosts] == [200] * 4
        async with tenant(server.control, "x", token="ann", hostnames=["shop.example.org"]):
            assert (await fetch(server.public, host="shop.example.org")).text.startswith("x ")


async def test_no_host_is_longer_than_names_can_be(start: Start) -> None:
    server = await start()
    async with tenant(server.control, "y", token="bob", hostnames=["*.example.org"]):
        host = "a." * 120 + "example.org"
        assert (len(host), (await fetch(server.public, host=host)).status) == (251, 200)
        assert (await fetch(server.public, host="a." * 15_000 + "example.org")).status == 404


async def test_nothing_is_reserved_by_a_tunnel_that_is_refused(start: Start) -> None:
    server = await start()
    await take(server, "ann", "taken")
    assert (await ask(server, "bob", "taken", hostnames=["shop.example.org"]))["code"] == "name_taken"
    assert (await ask(server, "bob", "mine", hostnames=["a.example.net"]))["code"] == "hostname_not_allowed"
    await take(server, "ann", "mine", hostnames=["shop.example.org"])


async def test_a_port_that_the_server_chose_is_not_reserved_and_one_that_is_reserved_is_not_chosen(
    start: Start,
) -> None:
    server = await start(tcp_ports=(range(PORT, PORT + 2),))
    await take(server, "ann", kind="tcp", remote_port=PORT)
    async with raw_client(server.control) as client:
        assert str((await client.register(token="bob", kind="tcp"))["url"]).endswith(f":{PORT + 1}")
        answer = await ask(server, "bob", kind="tcp")
        assert (answer["code"], answer["retryable"]) in (("no_port_free", True), ("port_taken", True))
    await take(server, "ann", kind="tcp", remote_port=PORT + 1)


async def test_reservations_end(start: Start, tmp_path: Path) -> None:
    server = await start()
    await take(server, "ann", "app")
    await take(server, "ann", "for-good")
    await server.stop()
    with raw(tmp_path) as connection:
        ((until,),) = connection.execute("SELECT until FROM reservations WHERE name = 'app'")
        assert time.time() + 6 * 86_400 < until <= time.time() + 7 * 86_400 + 1
        connection.execute("UPDATE reservations SET until = 1 WHERE name = 'app'")
        connection.execute("UPDATE reservations SET until = NULL WHERE name = 'for-good'")
    server = await start()
    await take(server, "bob", "app")
    await see_reserved(server, "ann", "app")
    await see_reserved(server, "bob", "for-good")


async def test_what_another_process_reserves_and_gives_up_counts_at_once(start: Start, tmp_path: Path) -> None:
    server = await start()
    await take(server, "ann", "app")
    async with open_database(tmp_path) as other:
        wanted = Reservation("name", "kept", "somebody")
        await other.write(queries.reserve, wanted, time.time(), by=SOMEBODY)
        while not await other.write(queries.release, "name", "app", SOMEBODY, time.time()):
            pass  # It is written down behind the answer.
    while (await ask(server, "bob", "app"))["type"] != "registered":
        pass
    await see_reserved(server, "ann", "kept")


async def test_a_lifetime_of_0_reserves_nothing(start: Start) -> None:
    server = await start(reservation=0)
    await take(server, "ann", "app")
    await take(server, "bob", "app")


async def test_nobody_in_particular_reserves_nothing(start: Start) -> None:
    server = await start(tokens=frozenset(), open=True)
    await take(server, None, "app")
    await take(server, "whatever", "app")


async def test_on_an_open_server_too_who_shows_a_token_has_what_it_has_taken(start: Start) -> None:
    server = await start(open=True)
    await take(server, "ann", "app")
    await see_reserved(server, None, "app")
    await see_reserved(server, "bob", "app")
    await take(server, "ann", "app")


async def test_names_that_the_server_made_up_are_the_same_after_a_restart_and_somebody_elses_to_nobody(
    start: Start,
) -> None:
    server = await start()
    first = [await take(server, token, local=local) for token in ("ann", "bob") for local in ("3000", "4000")]
    assert len(set(first)) == 4
    await server.stop()
    server = await start()
    await see_reserved(server, "bob", first[0])
    assert first == [await take(server, token, local=local) for token in ("ann", "bob") for local in ("3000", "4000")]


async def test_the_library_says_that_it_is_of_no_use_to_try_again(start: Start) -> None:
    server = await start()
    await open_for_a_moment(server, "ann")
    with pytest.raises(RegistrationRefused, match="'app'") as caught:
        await open_for_a_moment(server, "bob")
    assert (caught.value.code, caught.value.is_retryable) == ("name_taken", False)


async def open_for_a_moment(server: RunningServer, token: str) -> None:
    async with open_tunnel(server.control, name="app", token=token):
        pass


# When they end, on a clock of the test's


ANN, BOB = Identity(name="ann"), Identity(name="bob")
APP: Final[Key] = ("name", "app")
DAY: Final = 86_400.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as database:
        yield database


def take_for(reservations: Reservations, identity: Identity, key: Key) -> None:
    reservations.check(identity, [key])
    reservations.take(identity, [key], "here")


@asynccontextmanager
async def kept_fresh(reservations: Reservations, *in_use: tuple[Identity, list[Key], str]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reservations.keep_fresh, lambda: in_use)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_kept", [False, True], ids=["in memory", "in the database"])
async def test_a_name_is_kept_for_so_long_after_its_last_use(database: Database, is_kept: bool) -> None:
    now = 1000 * DAY
    reservations = Reservations(database if is_kept else None, lifetime=7 * DAY, clock=lambda: now)
    async with kept_fresh(reservations):
        take_for(reservations, ANN, APP)
        now += 6.9 * DAY
        with pytest.raises(Refused):
            take_for(reservations, BOB, APP)
        take_for(reservations, ANN, APP)  # Used once more.
        now += 6.9 * DAY
        with pytest.raises(Refused):
            reservations.check(BOB, [APP])
        now += 0.2 * DAY
        take_for(reservations, BOB, APP)
        with pytest.raises(Refused):
            take_for(reservations, ANN, APP)


async def test_a_name_is_used_for_as_long_as_its_tunnel_is_open(autojump_clock) -> None:
    reservations = Reservations(None, lifetime=DAY, clock=trio.current_time)
    reservations.take(ANN, [APP], "here")
    async with kept_fresh(reservations, (ANN, [APP], "here")):
        await trio.sleep(10 * DAY)
    await trio.sleep(0.9 * DAY)
    assert not reservations.is_free_for(BOB, APP)
    await trio.sleep(0.1 * DAY)
    assert reservations.is_free_for(BOB, APP)


async def test_what_was_taken_last_is_written_down_at_the_end(database: Database) -> None:
    reservations = Reservations(database, lifetime=DAY)
    async with kept_fresh(reservations):
        for number in range(3 * MAX_AT_ONCE):
            reservations.take(ANN, [("port", str(number))], "here")
    found = await database.read(queries.reservations, 0)
    assert {one.name for one in found} == {str(number) for number in range(3 * MAX_AT_ONCE)}


async def test_a_database_that_somebody_keeps_locked_keeps_nobody_waiting(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reservations = Reservations(database, lifetime=DAY)
    async with kept_fresh(reservations):
        with raw(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(20):
                take_for(reservations, ANN, ("name", f"app-{number}"))
            assert not reservations.is_free_for(BOB, ("name", "app-19"))
            while not caplog.records:
                await database.version()
        assert "another process has kept it locked" in caplog.records[0].message
    assert len(await database.read(queries.reservations, 0)) == 20
    assert len(await details(database)) == 20


async def test_what_a_full_disk_has_no_room_for_is_written_down_when_it_has(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.reservations.RETRY_INTERVAL", 0)
    reservations = Reservations(database, lifetime=DAY)
    async with kept_fresh(reservations):

        def fail(*_: object) -> None:
            raise DatabaseError(str(tmp_path), "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(queries, "take_reservations", fail)
            take_for(reservations, ANN, APP)
            async with open_database(tmp_path) as other:  # Another process's changes do not make it forgotten.
                await other.write(queries.reserve, Reservation("name", "kept", "cay"), 0, by=SOMEBODY)
            while reservations.is_free_for(BOB, ("name", "kept")):
                await trio.lowlevel.checkpoint()
            assert not reservations.is_free_for(BOB, APP)
        while len(await database.read(queries.reservations, 0)) < 2:
            pass
    assert ("name.reserve", "here") in [(one.what, one.origin) for one in await database.read(queries.audit, 9)]


async def test_what_the_operator_has_given_away_stays_so_although_its_tunnel_is_open(
    database: Database, tmp_path: Path
) -> None:
    reservations = Reservations(database, lifetime=DAY)
    reservations.take(ANN, [APP], "here")
    async with open_database(tmp_path) as other:
        await other.write(queries.reserve, Reservation(*APP, "bob"), 0, by=SOMEBODY)
    async with kept_fresh(reservations):  # It is written down too late.
        while not reservations.is_free_for(BOB, APP):
            await trio.lowlevel.checkpoint()
        reservations.take(ANN, [APP], "here")
        assert reservations.is_free_for(BOB, APP)
    assert await database.read(queries.reservations, 0) == [Reservation(*APP, "bob")]


async def test_what_is_kept_for_good_is_not_shortened_by_its_use(database: Database) -> None:
    await database.write(queries.reserve, Reservation(*APP, "ann"), 0, by=SOMEBODY)
    reservations = Reservations(database, lifetime=DAY)
    await reservations.load()
    take_for(reservations, ANN, APP)
    async with kept_fresh(reservations, (ANN, [APP], "here")):
        await database.version()
    assert await database.read(queries.reservations, 0) == [Reservation(*APP, "ann")]


async def test_a_wildcard_counts_before_it_is_written_down(database: Database) -> None:
    reservations = Reservations(database, lifetime=DAY)
    take_for(reservations, ANN, ("host", "*.example.org"))
    for name in ("*.example.org", "a.example.org", "*.a.example.org"):
        with pytest.raises(Refused):
            reservations.check(BOB, [("host", name)])
    take_for(reservations, BOB, ("host", "*.org"))
    assert not reservations.is_free_for(BOB, ("host", "a.example.org"))
