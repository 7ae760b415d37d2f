"""Tokens from their making to their end, while a server runs and clients are in."""

import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .running import (
    REFUSED,
    TOKEN,
    TOKEN_REFUSED,
    RunningServer,
    complaint,
    run_client,
    run_server,
    see_tunnel,
    visit,
)

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

SOON = 10.0
"""Seconds for what happens within one: not 30 and not 90, as when nobody tells a client anything."""

ENDED = re.compile(r".*\btoken\b.*(revoked|expired|new secret).*")

Create = Callable[..., str]
Connect = Callable[..., "Program"]


@pytest.fixture
def state(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    environment.setenv("OTUN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def create(start: "Start", state: Path) -> Create:
    """Make a token, or with another command change one; what is printed."""

    def run(name: str, *arguments: str, command: str = "create") -> str:
        ended = start("token", command, name, *arguments).wait()
        assert ended.code == 0, ended.stderr
        return ended.stdout.strip()

    return run


@pytest.fixture
def connect(start: "Start", local_port: int, environment: pytest.MonkeyPatch) -> Connect:
    """Start a client with a token, beside a service that says hello."""

    def connect(server: RunningServer, token: str, *arguments: str) -> "Program":
        with environment.context() as patch:
            patch.setenv("OTUN_TOKEN", token)
            return run_client(start, server, "http", str(local_port), "--log-level", "error", *arguments)

    return connect


def see_end_soon(client: "Program", since: float) -> str:
    """Wait until the client is gone because of its token; the line that it has said."""
    ended = client.wait()
    assert time.monotonic() - since < SOON
    code, line = complaint(ended)
    assert code == TOKEN_REFUSED
    return line


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_whoever_is_in_with_a_token_that_ends_is_sent_away_and_told_why(
    start: "Start", state: Path, create: Create, connect: Connect, command: str
) -> None:
    server = run_server(start, "--state", str(state))
    ci, ann = create("ci"), create("ann")
    client, other = connect(server, ci, "--name", "app"), connect(server, ann, "--name", "other")
    url, others_url = see_tunnel(client), see_tunnel(other)
    assert visit(server, url) == (200, b"hello")
    since = time.monotonic()
    new = create("ci", command=command)
    assert ENDED.fullmatch(see_end_soon(client, since))
    assert visit(server, url)[0] == 404
    since = time.monotonic()
    assert "not valid" in see_end_soon(connect(server, ci), since)
    if command == "rotate":
        assert TOKEN.fullmatch(new)
        again = connect(server, new, "--name", "app")  # The name is the same client's still.
        assert see_tunnel(again) == url
    assert visit(server, others_url) == (200, b"hello")
    assert other.process.poll() is None
    ended = server.stop()
    assert not any(secret in ended.stderr for secret in (ci, ann, new) if secret)


def test_a_token_that_expires_ends_the_sessions_that_it_has_opened(
    start: "Start", state: Path, create: Create, connect: Connect
) -> None:
    server = run_server(start, "--state", str(state))
    token = create("ci", "--expires", "1m")
    client = connect(server, token, "--name", "app")
    url = see_tunnel(client)
    since = time.monotonic()
    with closing(sqlite3.connect(state / "otun.db")) as connection:  # A minute is too long for a test.
        connection.execute("UPDATE tokens SET expires = ?", (int(time.time()),))
        connection.commit()
    assert ENDED.fullmatch(see_end_soon(client, since))
    assert visit(server, url)[0] == 404
    since = time.monotonic()
    assert "expired" in see_end_soon(connect(server, token), since)


def test_plain_and_stored_tokens_work_side_by_side(
    start: "Start", state: Path, tmp_path: Path, create: Create, connect: Connect, environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("# ann\nfrom-a-file\n")
    with environment.context() as patch:
        patch.setenv("OTUN_TOKENS", "from-the-environment, another")
        server = run_server(start, "--state", str(state), "--tokens-file", str(tmp_path / "keys"))
    stored = create("ci")
    clients = [
        connect(server, token, "--name", f"app-{number}")
        for number, token in enumerate(["from-a-file", "from-the-environment", "another", stored])
    ]
    urls = [see_tunnel(client) for client in clients]
    since = time.monotonic()
    create("ci", command="revoke")
    see_end_soon(clients.pop(), since)
    assert [visit(server, url)[0] for url in urls] == [200, 200, 200, 404]
    assert all(client.process.poll() is None for client in clients)
    since = time.monotonic()
    assert "not valid" in see_end_soon(connect(server, "from-a-fil"), since)


def test_a_revoked_token_is_none_for_a_server_that_starts_later_or_on_a_copy(
    start: "Start", state: Path, tmp_path: Path, create: Create, connect: Connect
) -> None:
    token, copy = create("ci"), tmp_path / "copy"
    create("ci", command="revoke")
    shutil.copytree(state, copy)
    for folder in (state, copy):
        server = run_server(start, "--state", str(folder))
        since = time.monotonic()
        assert "not valid" in see_end_soon(connect(server, token), since)
        server.stop()
    ended = start("token", "rotate", "ci").wait()
    assert (ended.code, ended.stdout) == (2, "")


def test_what_a_token_may_counts_at_the_command_line(
    start: "Start", state: Path, create: Create, connect: Connect
) -> None:
    server = run_server(start, "--state", str(state))
    token = create("ci", "--may", "http:app-*", "--max-tunnels", "1")
    client = connect(server, token)
    assert see_tunnel(client).startswith("http://app-")
    ended = connect(server, token, "--name", "other").wait()
    code, line = complaint(ended)
    assert code == REFUSED
    assert "'other'" in line
    assert "http:app-*" in line
    code, line = complaint(connect(server, token, "--name", "app-2").wait())
    assert code == REFUSED
    assert "1 tunnel" in line
