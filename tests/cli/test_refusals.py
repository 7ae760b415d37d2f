"""What a server refuses, and why it ends a tunnel: a line that says what to do, and an exit code for scripts."""

import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from otun import ControlChannel, open_session
from otun.cli.failures import report_failure
from otun.cli.refusals import describe_refusal
from otun.control.messages import Error, Registered
from otun.control.refusals import REFUSALS, refusal_of
from otun.mux.errors import TunnelEnded

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]

ANY_PORT = ("--control", "127.0.0.1:0", "--public", "127.0.0.1:0")
NOT_SAID_BY_THE_SERVER = {*REFUSALS, "taken_over", "kicked"} - {"hostname_not_allowed", "kind_unknown", "tls_required"}


@pytest.mark.parametrize("code", sorted(code for code in NOT_SAID_BY_THE_SERVER if not code.endswith("_invalid")))
def test_what_to_do_is_said_for_each_code_at_first_and_later(code: str) -> None:
    refusal = refusal_of(Error("no", code=code))
    hint = describe_refusal(refusal).removeprefix("no; ")
    assert 10 < len(hint) < 100
    assert describe_refusal(TunnelEnded("the server ended the tunnel: no", refusal)) == (
        f"the server ended the tunnel: no; {hint}"
    )


@pytest.mark.parametrize("code", ["", "from_the_future", "path_invalid", "silent"])
def test_other_refusals_are_what_the_server_says(code: str) -> None:
    assert describe_refusal(refusal_of(Error("no room", code=code))) == "no room"


@pytest.mark.parametrize("is_later", [False, True])
def test_a_hostile_servers_sentence_is_a_line_of_bounded_length(
    capsys: pytest.CaptureFixture[str], is_later: bool
) -> None:
    refusal = refusal_of(Error("\x1b[2J\n\N{RIGHT-TO-LEFT OVERRIDE}" + "\N{PILE OF POO}" * 60_000, code="bad_token"))
    error = TunnelEnded(str(refusal), refusal) if is_later else refusal
    assert report_failure(error) == 6
    err = capsys.readouterr().err
    assert err.startswith("otun: \\x1b[2J\\n\\u202e\N{PILE OF POO}")
    assert err.endswith("…; set OTUN_TOKEN, or --token-file FILE, to one that its operator has made\n")
    assert err.rstrip("\n").isprintable()
    assert len(err) < 600


# A real server


def said(ended: "Ended") -> str:
    """The one line that a program has left on stderr."""
    assert ended.stdout == ""
    found = re.fullmatch(r"otun: (.+)\n", ended.stderr)
    assert found, ended.stderr
    return found[1]


@pytest.fixture
def connect(start: "Start", environment: pytest.MonkeyPatch) -> "Callable[..., Program]":
    """Start a client of one server, with one of its two tokens."""
    environment.setenv("OTUN_TOKENS", "s3cret another")
    environment.setenv("OTUN_LOG_LEVEL", "error")
    server = start("server", *ANY_PORT, "--allow-hostname", "shop.example.org", "--tcp-ports", "20000-20100")
    environment.delenv("OTUN_TOKENS")
    environment.setenv("OTUN_SERVER", server.read_line().removeprefix("control "))
    environment.setenv("OTUN_TOKEN", "s3cret")
    return start


@pytest.mark.parametrize(("token", "problem"), [("", "a token is required"), ("wr0ng", "the token is not valid")])
def test_a_client_without_the_token_is_refused_with_exit_code_6(
    connect: "Start", environment: pytest.MonkeyPatch, token: str, problem: str
) -> None:
    environment.setenv("OTUN_TOKEN", token)
    ended = connect("http", "9").wait()
    assert ended.code == 6
    assert said(ended) == (
        f"{problem} on this server; set OTUN_TOKEN, or --token-file FILE, to one that its operator has made"
    )
    environment.setenv("OTUN_TOKEN", "s3cret")
    assert connect("http", "9").read_line().startswith("http://")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--name", "app"], "subdomain 'app' is already in use"),
        (["--hostname", "shop.example.org"], "hostname 'shop.example.org' is already in use"),
    ],
)
def test_a_taken_name_is_exit_code_7_until_it_is_free(connect: "Start", arguments: list[str], problem: str) -> None:
    first = connect("http", "9", *arguments)
    assert first.read_line().startswith("http://")
    ended = connect("http", "9", *arguments).wait()
    assert ended.code == 7
    assert re.fullmatch(f"{problem}.*; choose another --name or --hostname, or leave it out", said(ended))
    assert first.signal(signal.SIGTERM).code == 0
    assert connect("http", "9", *arguments).read_line().startswith("http://")


def test_a_name_that_is_reserved_for_somebody_else_is_exit_code_7(
    connect: "Start", environment: pytest.MonkeyPatch
) -> None:
    first = connect("http", "9", "--name", "app")
    assert first.read_line().startswith("http://")
    assert first.signal(signal.SIGTERM).code == 0
    environment.setenv("OTUN_TOKEN", "another")
    ended = connect("http", "9", "--name", "app").wait()
    assert ended.code == 7
    assert said(ended).endswith("; choose another --name or --hostname, or leave it out")


def test_a_taken_port_is_exit_code_7_and_one_that_is_not_for_tunnels_is_3(connect: "Start") -> None:
    port = connect("tcp", "9").read_line().rpartition(":")[2]
    ended = connect("tcp", "9", "--remote-port", port).wait()
    assert ended.code == 7
    assert re.fullmatch(f"port {port} is already in use.*; choose another --remote-port, or leave it out", said(ended))
    ended = connect("tcp", "9", "--remote-port", "80").wait()
    assert ended.code == 3
    assert said(ended).startswith("port 80 is not among those for TCP tunnels on this server; without --remote-port")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["http", "9", "--hostname", "other.example.org"], "hostname 'other.example.org' is not allowed"),
        (["tls", "9", "--name", "app"], "this server has no port for TLS tunnels; its operator can give it one"),
    ],
)
def test_what_is_not_allowed_is_exit_code_3(connect: "Start", arguments: list[str], problem: str) -> None:
    ended = connect(*arguments).wait()
    assert ended.code == 3
    assert said(ended).startswith(problem)


def test_a_token_that_may_less_is_exit_code_3_and_one_that_is_revoked_6(
    start: "Start", environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("OTUN_STATE", str(tmp_path / "state"))
    environment.setenv("OTUN_LOG_LEVEL", "error")
    environment.setenv(
        "OTUN_TOKEN", start("token", "create", "ci", "--may", "http:app-*", "--max-tunnels", "1").read_line()
    )
    server = start("server", *ANY_PORT)
    environment.setenv("OTUN_SERVER", server.read_line().removeprefix("control "))
    ended = start("http", "9", "--name", "other").wait()
    assert ended.code == 3
    assert said(ended).startswith(
        "this token may not use the name 'other'; it may: http:app-*; choose another --name, or"
    )
    client = start("http", "9", "--name", "app-1")
    assert client.read_line().startswith("http://")
    ended = start("http", "9").wait()
    assert ended.code == 3
    assert said(ended) == "this token may have 1 tunnel at a time; open fewer, or end another one first"
    assert start("token", "revoke", "ci").wait().code == 0
    ended = client.wait()
    assert ended.code == 6
    assert re.fullmatch(
        r"the server at 127\.0\.0\.1:\d+ ended the tunnel: the token was revoked, has expired or has got a new secret; "
        "ask the server's operator for another one",
        said(ended),
    )
    assert start("http", "9").wait().code == 6


def test_too_many_tunnels_are_exit_code_3(connect: "Start", tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[[tunnel]]\nlocal = '9'\n" * 65)
    ended = connect("start", "--config", str(config)).wait()
    assert ended.code == 3
    assert said(ended) == "a client has at most 64 tunnels here; open fewer, or end another one first"


# A server that ends the tunnel


@pytest.mark.parametrize(
    ("farewell", "code", "line"),
    [
        (Error("revoked", code="token_revoked"), 6, "revoked; ask the server's operator for another one"),
        (Error("it came back", code="taken_over"), 3, "it came back; if this client runs twice"),
        (Error("out", code="kicked"), 3, "out; ask the server's operator"),
        (Error("out", code="banned"), 3, "out; ask the server's operator"),
        (Error("later", code="from_the_future", retryable=True), 4, "later"),
        (Error("never", code="from_the_future"), 3, "never"),
        (Error("no heartbeat", code="silent", retryable=True), 4, "no heartbeat"),
        (Error("\x1b[31mrepairs"), 4, r"\x1b[31mrepairs"),
    ],
    ids=repr,
)
async def test_a_server_that_ends_the_tunnel_is_a_line_and_a_code_for_its_reason(
    start: "Start", nursery: trio.Nursery, farewell: Error, code: int, line: str
) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            channel = ControlChannel(await session.accept())
            await channel.receive()
            await channel.send(Registered("http://app.example", "app"))
            await is_open.wait()
            await channel.send(farewell)
            await session.wait_closed()

    is_open = trio.Event()
    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    server = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    client = start("http", "9", "--server", server, "--log-level", "error", "--no-reconnect")
    assert await trio.to_thread.run_sync(client.read_line) == "http://app.example"
    is_open.set()
    ended = await trio.to_thread.run_sync(client.wait)
    nursery.cancel_scope.cancel()
    assert ended.code == code
    assert said(ended).startswith(f"the server at {server} ended the tunnel: {line}")
