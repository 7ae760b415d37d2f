"""The admin socket of a running server: who may use it, what it says, and what it does not mind."""

import contextlib
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from otun import OtunError
from otun.cli.running_server import ask
from otun.errors import ConfigurationError, DatabaseError
from otun.server import queries
from otun.server.admin import port as admin_port
from otun.server.admin.place import LOCK, NAME, StateFolderBusy, address_of, claimed_place, opened_folder
from otun.server.admin.requests import MAX_LINE
from otun.server.database import Database, open_database
from otun.server.records import Ban
from otun.version import __version__

from .harness import RunningServer, loopback_settings, open_descriptors, run_server
from .raw_client import raw_client
from .stored_tokens import SOMEBODY, stored

Start = Callable[..., object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start(start_server, folder: Path) -> Start:
    async def start_with_state(**changes: object) -> RunningServer:
        return await start_server(state=folder, **changes)

    return start_with_state


class Talk:
    """A connection to the admin socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def hear(self) -> dict[str, object]:
        while b"\n" not in self._received:
            data = await self.stream.receive_some()
            assert data, "it has closed the connection"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer = json.loads(line)
        assert answer["ok"] is True or (re.fullmatch(r"[ -~]+", answer["error"]) and answer["code"])
        return answer

    async def ask(self, do: object, **fields: object) -> dict[str, object]:
        await self.say(json.dumps({"do": do, **fields}).encode() + b"\n")
        return await self.hear()

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def is_over(self) -> bool:
        try:
            return not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    async with await trio.open_unix_socket(folder / NAME) as stream:
        yield Talk(stream)


async def audit_of(folder: Path) -> list[tuple[str, str, str, str]]:
    async with open_database(folder) as database:
        return [(one.who, one.what, one.origin, one.detail) for one in await database.read(queries.audit, 100)]


# What can be asked


async def test_status(start: Start, folder: Path) -> None:
    server = await start()
    async with talking(folder) as talk, raw_client(server.control) as client, raw_client(server.control) as other:
        before = await talk.ask("status")
        assert before["uptime"] in (0, 1)
        assert before | {"uptime": 0} == {
            "ok": True,
            "version": __version__,
            "pid": os.getpid(),
            "uptime": 0,
            "control": [str(server.control)],
            "public": [str(server.public)],
            "https": [],
            "sessions": 0,
            "tunnels": 0,
            "visitors": 0,
            "bans": 0,
            "open": True,
            "draining": False,
            "database": None,
        }
        await client.register("app")
        tcp = await other.register(kind="tcp", id="1")
        await other.register("more", id="2")
        port = int(str(tcp["url"]).rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
            async with await trio.open_tcp_stream(server.public.host, server.public.port):
                await talk.ask("ban", network="192.0.2.1")
                while (now := await talk.ask("status"))["visitors"] != 2:
                    await trio.testing.wait_all_tasks_blocked()
                assert (now["sessions"], now["tunnels"], now["bans"]) == (2, 3, 1)
            await visitor.send_all(b"x")


async def test_sessions(start: Start, folder: Path) -> None:
    server = await start()
    async with talking(folder) as talk, raw_client(server.control) as client, raw_client(server.control) as other:
        await client.register("app", id="1")
        await client.register(kind="tls", subdomain="x", id="2")  # It has no port for that.
        await other.register("more")
        answer = await talk.ask("sessions")
        first, second = answer["sessions"]
        assert answer["more"] is False
        assert (first["number"], second["number"]) == (1, 2)
        assert first["identity"] == "(anyone)"
        assert first["address"].startswith("127.0.0.1:")
        assert 0 <= first["silence"] < 10
        url = first["tunnels"][0]["url"]
        assert first["tunnels"] == [{"name": "app", "kind": "http", "url": url, "visitors": 0, "healthy": True}]
        assert (await talk.ask("sessions", after=1))["sessions"][0]["number"] == 2
        assert (await talk.ask("sessions", after=2)) == {"ok": True, "sessions": [], "more": False}


async def test_long_lists_come_in_parts(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.admin.operations.SESSIONS_AT_ONCE", 1)
    monkeypatch.setattr("otun.server.admin.operations.BANS_AT_ONCE", 2)
    server = await start()
    async with talking(folder) as talk, raw_client(server.control) as client, raw_client(server.control) as other:
        await client.register("app")
        await other.register("more")
        for number in range(3):
            await talk.ask("ban", network=f"192.0.2.{number}")
        answer = await talk.ask("sessions")
        assert ([one["number"] for one in answer["sessions"]], answer["more"]) == ([1], True)
        answer = await talk.ask("sessions", after=1)
        assert ([one["number"] for one in answer["sessions"]], answer["more"]) == ([2], False)
        answer = await talk.ask("bans")
        assert ([one["network"] for one in answer["bans"]], answer["more"]) == (["192.0.2.0/32", "192.0.2.1/32"], True)
        answer = await talk.ask("bans", after="192.0.2.1/32")
        assert ([one["network"] for one in answer["bans"]], answer["more"]) == (["192.0.2.2/32"], False)


@pytest.mark.parametrize(
    "who", ["app", "APP", "app.tunnel.test", "shop.example.org", "Shop.Example.Org.", "#1", "PORT"]
)
async def test_a_session_is_kicked_by_each_of_its_names(start: Start, folder: Path, who: str) -> None:
    server = await start(domain="tunnel.test", allow_hostnames=("shop.example.org",))
    async with talking(folder) as talk, raw_client(server.control) as client, raw_client(server.control) as other:
        await client.register("app", id="1", hostnames=["shop.example.org"])
        tcp = await client.register(kind="tcp", id="2")
        await other.register("other")
        port = str(tcp["url"]).rpartition(":")[2]
        answer = await talk.ask("kick", who=port if who == "PORT" else who)
        assert answer["recorded"] is True
        (ended,) = answer["sessions"]
        assert ended["number"] == 1
        assert [tunnel["name"] for tunnel in ended["tunnels"]] == ["app", f"tcp-{port}"]
        farewell = await client.hear_farewell()
        assert (farewell["code"], farewell.get("retryable", False)) == ("kicked", False)
        assert "operator" in str(farewell["message"])
        await other.say({"type": "heartbeat"})
        assert (await other.hear())["type"] == "heartbeat_ack"
        assert (await talk.ask("status"))["sessions"] == 1
    *_, (by, what, origin, detail) = await audit_of(folder)
    assert re.fullmatch(rf".+ \(uid {os.getuid()}\)", by)
    assert (what, origin) == ("session.kick", f"admin.sock, process {os.getpid()}")
    assert re.fullmatch(rf"session 1 of \(anyone\) from 127.0.0.1:\d+: app, tcp-{port}", detail)


async def test_all_sessions_that_have_the_name_are_kicked(start: Start, folder: Path) -> None:
    server = await start()
    async with talking(folder) as talk, raw_client(server.control) as one, raw_client(server.control) as other:
        for client in (one, other):
            assert (await client.register("ssh", kind="tcp"))["type"] == "registered"
        assert [ended["number"] for ended in (await talk.ask("kick", who="ssh"))["sessions"]] == [1, 2]
        for client in (one, other):
            assert (await client.hear_farewell())["code"] == "kicked"
    assert [what for _, what, _, _ in await audit_of(folder)] == ["session.kick"] * 2


@pytest.mark.parametrize("who", ["ap", "1", "#2", "#", "#01", "65536", "99999999999999", "", "other.test", "*", "\0"])
async def test_whoever_is_not_there_is_not_kicked(start: Start, folder: Path, who: str) -> None:
    server = await start()
    async with talking(folder) as talk, raw_client(server.control) as client:
        await client.register("app")
        answer = await talk.ask("kick", who=who)
        assert (answer["ok"], answer["code"]) == (False, "not_found")
        assert (await talk.ask("status"))["sessions"] == 1
    assert await audit_of(folder) == []


async def test_bans_are_in_force_at_once_and_stay(start: Start, folder: Path) -> None:
    server = await start()
    async with talking(folder) as talk:
        answer = await talk.ask("ban", network="127.0.0.0/30", reason="spam", force=True)
        assert answer == {"ok": True, "network": "127.0.0.0/30", "recorded": True}
        async with await trio.open_tcp_stream(server.control.host, server.control.port) as stranger:
            assert await Talk(stranger).is_over()
        ban = {"network": "127.0.0.0/30", "reason": "spam", "until": None}
        assert (await talk.ask("bans"))["bans"] == [ban]
        assert (await talk.ask("ban", network="10.0.0.0/8", until=5))["error"] == "until: that time is past"
    await server.stop()
    server = await start()
    async with talking(folder) as talk:
        assert (await talk.ask("bans"))["bans"] == [ban]
        assert (await talk.ask("unban", network="127.0.0.0/30"))["ok"]
        assert (await talk.ask("unban", network="127.0.0.0/30"))["code"] == "not_found"
        async with raw_client(server.control) as client:
            assert (await client.register("app"))["type"] == "registered"
    assert [what for _, what, _, _ in await audit_of(folder)] == ["ban.add", "ban.remove"]


async def test_a_database_in_trouble(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch, server_log) -> None:
    server = await start()

    async def fail(database: Database, *arguments: object) -> None:
        database.trouble = "No space left on device"
        raise DatabaseError("DB", "No space left on device")

    async with talking(folder) as talk, raw_client(server.control) as client:
        await talk.ask("ban", network="192.0.2.1")
        await client.register("app")
        write = Database.write
        monkeypatch.setattr(Database, "write", fail)
        caught: list[str] = []
        monkeypatch.setattr(
            "otun.server.admin.operations.logger.error", lambda *text: caught.append(text[0] % text[1:])
        )
        monkeypatch.setattr("otun.server.bans.logger.error", lambda *text: caught.append(text[0] % text[1:]))
        assert (await talk.ask("kick", who="app"))["recorded"] is False
        assert (await client.hear_farewell())["code"] == "kicked"
        assert await talk.ask("ban", network="127.0.0.1", force=True) == {
            "ok": True, "network": "127.0.0.1/32", "recorded": False,
        }  # fmt: skip
        answer = await talk.ask("unban", network="192.0.2.1")
        assert (answer["error"], answer["code"]) == (
            "192.0.2.1/32 stays banned: database DB: No space left on device", "database",
        )  # fmt: skip
        assert (await talk.ask("status"))["database"] == "No space left on device"
        assert [one["network"] for one in (await talk.ask("bans"))["bans"]] == ["127.0.0.1/32", "192.0.2.1/32"]
        monkeypatch.setattr(Database, "write", write)
        assert (await talk.ask("unban", network="127.0.0.1"))["ok"]
        assert (await talk.ask("unban", network="192.0.2.1"))["ok"]
        assert (await talk.ask("status"))["database"] is None
    assert [re.sub(r"127.0.0.1:\d+", "ADDRESS", line) for line in caught] == [
        f"the audit cannot tell that {admin_port.describe_user(os.getuid())} ends session 1 of (anyone) from ADDRESS: "
        "app: database DB: No space left on device",
        f"{admin_port.describe_user(os.getuid())} has banned 127.0.0.1/32, for as long as the server runs: "
        "database DB: No space left on device",
    ]


# Those who misbehave


async def test_after_a_mistake_the_connection_can_be_used(start: Start, folder: Path) -> None:
    await start()
    async with talking(folder) as talk:
        for line in (b"", b"{", b"null", b"\xff\x00", b'{"do":"nothing"}', b"[" * 4000, b'{"do":"kick"}'):
            await talk.say(line + b"\n")
            assert (await talk.hear())["code"] == "bad_request"
        await talk.say(b'{"do":"status"}\n{"do":"status"}\n{"do":')
        assert (await talk.hear())["ok"]
        assert (await talk.hear())["ok"]
        await talk.say(b'"status"}\n')
        assert (await talk.hear())["ok"]


async def test_a_line_without_an_end_is_refused(start: Start, folder: Path) -> None:
    await start()
    async with talking(folder) as talk:
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(1024):  # A GiB, if it were read.
                await talk.say(b"x" * 2**20)
        answer = await talk.hear()
        assert (answer["code"], answer["error"]) == ("bad_request", f"a request is longer than {MAX_LINE} bytes")
        assert await talk.is_over()
    async with talking(folder) as talk:
        assert (await talk.ask("status"))["ok"]


async def test_half_a_line_and_silence_is_given_up(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_port, "REQUEST_TIMEOUT", 0.05)
    await start()
    async with talking(folder) as talk:
        await talk.say(b'{"do":')
        assert str((await talk.hear())["error"]).startswith("no whole request within")
        assert await talk.is_over()
    async with talking(folder) as silent:
        assert await silent.is_over()
    async with talking(folder) as slow:  # A byte now and then is no request.
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await slow.say(b" ")
                await trio.sleep(0.001)
        assert str((await slow.hear())["error"]).startswith("no whole request within")


async def test_an_answer_that_nobody_takes_is_given_up(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_port, "ANSWER_TIMEOUT", 0.05)
    await start()
    async with talking(folder) as talk:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await talk.say(b'{"do":"status"}\n' * 100)
    async with talking(folder) as talk:
        assert (await talk.ask("status"))["ok"]


async def test_a_script_may_give_many_commands_at_once(start: Start, folder: Path) -> None:
    await start()
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(partial(ask, folder, "ban", network=f"192.0.2.{number}"))
            nursery.start_soon(ask, folder, "status")
    assert (await ask(folder, "status"))["bans"] == 100


async def test_whoever_is_turned_away_hears_why(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await start()
    monkeypatch.setattr(admin_port, "MAX_CONNECTIONS", 0)
    for _ in range(20):
        with pytest.raises(OtunError, match="try again"):
            await ask(folder, "status")


async def test_a_thousand_connections_leave_the_server_as_it_is(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_port, "MAX_CONNECTIONS", 16)
    server = await start()
    before = len(open_descriptors())
    busy = 0
    for _ in range(25):
        async with contextlib.AsyncExitStack() as stack:
            talks = [await stack.enter_async_context(talking(folder)) for _ in range(40)]
            for talk in talks:
                with contextlib.suppress(trio.BrokenResourceError):
                    await talk.say(b'{"do":"status"}\n')
                answer = await talk.hear()
                busy += answer.get("code") == "busy"
    assert busy >= 25 * (40 - admin_port.MAX_CONNECTIONS - 1) / 2
    async with raw_client(server.control) as client:
        assert (await client.register("app"))["type"] == "registered"
    while len(open_descriptors()) > before:
        await trio.testing.wait_all_tasks_blocked()
    async with talking(folder) as talk:
        assert (await talk.ask("status"))["ok"]


async def test_other_users_are_turned_away_whatever_the_mode(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch, server_log
) -> None:
    await start()
    pid, uid = os.getpid(), os.geteuid()
    for other, is_welcome in ((0, True), (uid, True), (uid + 12345, False)):
        monkeypatch.setattr(admin_port, "peer_of", lambda sock, found=(pid, other): found)
        async with talking(folder) as talk:
            if is_welcome:
                assert (await talk.ask("status"))["ok"]
            else:
                assert (await talk.hear())["code"] == "not_permitted"
                assert await talk.is_over()
    assert [line for line in server_log.lines if "user" in line] == [
        f"local user {uid + 12345}: turned away from admin.sock: it is another user's"
    ]


async def test_the_kernel_says_who_is_there(tmp_path: Path) -> None:
    with claimed_place(tmp_path) as place:
        assert place.admin is not None
        async with await trio.open_unix_socket(tmp_path / NAME):
            found, _ = place.admin.accept()
            with found:
                assert admin_port.peer_of(found) == (os.getpid(), os.getuid())


# Where it is


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_it_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    os.chmod(tmp_path, 0o777)
    before = os.umask(umask)
    modes: list[int] = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: str) -> None:
            bind(self, address)
            modes.append(stat.S_IMODE(os.stat(address).st_mode))

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        stack.callback(os.umask, before)
        patch.setattr("socket.socket", Watched)
        stack.enter_context(claimed_place(tmp_path))
        assert modes == [0o600 & ~umask]
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
        assert set(os.listdir(tmp_path)) == {LOCK, NAME}
    assert os.listdir(tmp_path) == [LOCK]


async def test_a_socket_of_a_killed_server_is_replaced(start: Start, folder: Path) -> None:
    os.mkdir(folder)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / NAME))
        os.chmod(folder / NAME, 0o777)
    server = await start()
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    async with talking(folder) as talk:
        assert (await talk.ask("status"))["ok"]
    await server.stop()
    assert not (folder / NAME).exists()


async def test_a_living_server_keeps_its_socket(start: Start, folder: Path, nursery: trio.Nursery) -> None:
    await start()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - in a group
        await run_server(nursery, loopback_settings(state=folder))
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, StateFolderBusy)
    async with talking(folder) as talk:
        assert (await talk.ask("status"))["ok"]


def test_something_else_of_its_name_stays(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"admin.sock: there is something else of that name; move it away$"):
        claimed_place(tmp_path).__enter__()
    assert path.read_text() == "mine"


def test_a_link_of_its_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OtunError, match="something else"):
        claimed_place(tmp_path).__enter__()


def test_where_there_can_be_no_socket_the_server_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = open_descriptors()
    monkeypatch.setattr("os.rename", fail)
    with claimed_place(tmp_path) as place:
        assert place.admin is None
    assert caplog.messages == [f"no commands for this server can be taken: {tmp_path / NAME}: No space left on device"]
    assert os.listdir(tmp_path) == [LOCK]
    assert open_descriptors() == before


@pytest.mark.parametrize("length", [50, 90, 107, 108, 109, 200, 1000])
def test_its_path_may_be_long(tmp_path: Path, length: int) -> None:
    folder = tmp_path
    while len(str(folder / NAME)) < length - 100:
        folder /= "x" * 80
    folder /= "x" * max(length - len(str(folder / NAME)) - 1, 1)
    folder.mkdir(parents=True)
    with claimed_place(folder) as place, socket.socket(socket.AF_UNIX) as client:
        assert place.admin is not None
        with opened_folder(folder) as descriptor:
            client.connect(address_of(folder, descriptor))
        place.admin.accept()[0].close()
        assert set(os.listdir(folder)) == {LOCK, NAME}


async def test_without_a_state_folder_there_is_none(start_server, tmp_path: Path) -> None:
    await start_server()
    assert os.listdir(tmp_path) == []


async def test_bans_of_another_process_are_told(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.following.POLL_INTERVAL", 0.01)
    await start(tokens=frozenset({"x"}))
    async with talking(folder) as talk, open_database(folder) as database:
        await database.write(queries.create_token, stored("ci"), SOMEBODY)
        await database.write(queries.ban, Ban("192.0.2.0/24", "spam"), SOMEBODY, 1)
        while not (answer := await talk.ask("bans"))["bans"]:
            await trio.testing.wait_all_tasks_blocked()
        assert answer["bans"] == [{"network": "192.0.2.0/24", "reason": "spam", "until": None}]
