"""Who may visit, as flags, variables and the configuration file say it; and the processes that see to it."""

import base64
import http.client
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import otun.cli.client
from otun import ServerUnreachable, TunnelSettings
from otun.cli import main
from otun.cli.visitor_rules import read_logins_file
from otun.errors import ConfigurationError

from ..access.logins import cheap_login

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

pytestmark = pytest.mark.usefixtures("environment")

ANN = cheap_login("ann", "s3cret")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TunnelSettings]:
    """The settings that `open_tunnels` was called with; the server is not reached, which ends the command with 4."""
    seen: list[TunnelSettings] = []

    @asynccontextmanager
    async def open_tunnels(server: object, settings: Sequence[TunnelSettings], **_: object) -> AsyncIterator[tuple]:
        seen[:] = settings
        await trio.lowlevel.checkpoint()
        raise ServerUnreachable("nobody there")
        yield ()

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr."""
    return capsys.readouterr().err.splitlines()[-1].removeprefix("otun: ")


FLAGS = [
    *("--basic-auth", "ann:a b", "--basic-auth", "bob:c", "--allow-ip", "10.0.0.0/8", "--allow-ip", "::1"),
    *("--deny-ip", "10.0.0.7", "--require-header", "X-Key: k3y", "--require-header", "X-Client"),
]
WANTED = TunnelSettings(
    local="localhost:3000",
    basic_auth=("ann:a b", "bob:c"),
    allow_ip=("10.0.0.0/8", "::1"),
    deny_ip=("10.0.0.7",),
    require_header=("X-Key: k3y", "X-Client"),
)


@pytest.mark.parametrize("command", [["http", "3000"], ["client", "--local", "3000"]], ids=" ".join)
def test_flags_say_who_may_visit(
    asked: list[TunnelSettings], capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--server", "h", *FLAGS]) == 4
    assert asked == [WANTED]
    err = capsys.readouterr().err
    assert "warning: other users of this machine see the password of --basic-auth" in err
    assert "a b" not in err


def test_variables_say_it_too(
    asked: list[TunnelSettings], environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("OTUN_BASIC_AUTH", "ann:a b\nbob:c\n")
    environment.setenv("OTUN_ALLOW_IP", "10.0.0.0/8\n::1")
    environment.setenv("OTUN_DENY_IP", "10.0.0.7")
    environment.setenv("OTUN_REQUIRE_HEADER", "X-Key: k3y\nX-Client")
    assert main(["http", "3000", "--server", "h"]) == 4
    assert asked == [WANTED]
    assert "warning" not in capsys.readouterr().err


def test_the_file_says_it_too(asked: list[TunnelSettings], config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(
        '[client]\nserver = "h"\nbasic_auth = ["ann:a b", "bob:c"]\nallow_ip = ["10.0.0.0/8", "::1"]\n'
        'deny_ip = ["10.0.0.7"]\nrequire_header = ["X-Key: k3y", "X-Client"]\n'
    )
    config.chmod(0o600)
    assert main(["http", "3000", "--config", str(config)]) == 4
    assert asked == [WANTED]
    assert "warning" not in capsys.readouterr().err


def test_each_table_says_it_for_its_own_tunnel(asked: list[TunnelSettings], config: Path, tmp_path: Path) -> None:
    (tmp_path / "logins").write_text("ann:a b\n")
    config.write_text(
        '[client]\nserver = "h"\n'
        '[[tunnel]]\nlocal = "1"\nbasic_auth_file = "logins"\nrequire_header = ["X"]\n'
        '[[tunnel]]\nlocal = "2"\nkind = "tcp"\nallow_ip = ["::1"]\n'
        '[[tunnel]]\nlocal = "3"\nkind = "tls"\ndeny_ip = ["::1"]\n'
    )
    assert main(["start", "--config", str(config)]) == 4
    assert asked == [
        TunnelSettings(local="localhost:1", basic_auth=("ann:a b",), require_header=("X",)),
        TunnelSettings(local="localhost:2", kind="tcp", allow_ip=("::1",)),
        TunnelSettings(local="localhost:3", kind="tls", deny_ip=("::1",)),
    ]


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_raw_tunnels_look_at_addresses(asked: list[TunnelSettings], kind: str) -> None:
    assert main([kind, "22", "--server", "h", "--allow-ip", "10.0.0.0/8", "--deny-ip", "10.0.0.7"]) == 4
    assert asked[0].allow_ip == ("10.0.0.0/8",)
    assert asked[0].deny_ip == ("10.0.0.7/32",)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("setting", ["basic_auth", "basic_auth_file", "require_header"])
def test_a_raw_tunnel_that_should_do_more_is_an_error(
    asked: list[TunnelSettings],
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: Path,
    kind: str,
    setting: str,
) -> None:
    expected = f"a {kind.upper()} tunnel can only look at visitors' addresses"
    value = "ann:s3cret" if setting == "basic_auth" else "x"
    written = repr(value) if setting == "basic_auth_file" else repr([value])
    config.write_text(f"[[tunnel]]\nlocal='1'\nkind='{kind}'\n{setting} = {written}\n")
    assert main(["start", "--server", "h", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: tunnel[0].{setting}: {expected}")
    environment.setenv(f"OTUN_{setting.upper()}", value)
    assert main([kind, "22", "--server", "h"]) == 2
    assert complaint(capsys).startswith(f"OTUN_{setting.upper()}: {expected}")
    assert not asked


# A file with log-ins


def write(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "logins"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_file_has_a_log_in_a_line(tmp_path: Path) -> None:
    data = (
        f"# who may\n\nann:a b \r\nJos\N{LATIN SMALL LETTER E WITH ACUTE}:p\u2028q\n  \n{ANN.replace('ann', 'bob')}\n"
    )
    logins = read_logins_file(write(tmp_path, data.encode()))
    assert logins == ("ann:a b ", "José:p\u2028q", ANN.replace("ann", "bob"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds none: everybody could visit"),
        (b"\n# ann:x\n", "holds none: everybody could visit"),
        (b"ann:x\ns3cret\n", "line 2: a log-in is USER:PASSWORD"),
        (b"ann:s3cret\xff\n", "line 1: not UTF-8 text"),
        (b"ann:$apr1$s3cret$x\n", "line 1: the password looks like a hash"),
        (b"ann:$argon2id$s3cret\n", "line 1: a log-in is USER:$argon2id$"),
    ],
)
def test_a_mistake_in_it_is_named_by_its_line_and_not_repeated(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_logins_file(write(tmp_path, data))
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_is_named(asked: list[TunnelSettings], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http", "3000", "--server", "h", "--basic-auth-file", "/none/such"]) == 2
    assert complaint(capsys) == "file of log-ins /none/such: No such file or directory"
    assert not asked


def test_flag_and_file_of_one_source_add_up_and_the_strongest_source_counts(
    asked: list[TunnelSettings], tmp_path: Path, config: Path, environment: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, b"bob:b\n")
    config.write_text(f'[client]\nserver = "h"\nbasic_auth = ["eve:e"]\nbasic_auth_file = "{path}"\n')
    arguments = ["http", "3000", "--config", str(config)]
    assert main(arguments) == 4
    assert asked[0].basic_auth == ("eve:e", "bob:b")
    environment.setenv("OTUN_BASIC_AUTH", "var:v")
    assert main(arguments) == 4
    assert asked[0].basic_auth == ("var:v",)
    assert main([*arguments, "--basic-auth-file", str(path)]) == 4
    assert asked[0].basic_auth == ("bob:b",)
    assert main([*arguments, "--basic-auth-file", str(path), "--basic-auth", "ann:a"]) == 4
    assert asked[0].basic_auth == ("ann:a", "bob:b")


def test_files_that_others_can_read_are_warned_about(
    asked: list[TunnelSettings], tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_logins_file(write(tmp_path, b"ann:x", 0o644))
    assert f"other users can read the passwords in {tmp_path / 'logins'}" in capsys.readouterr().err
    read_logins_file(write(tmp_path, b"ann:x", 0o640))
    assert capsys.readouterr().err == ""
    for line, what in (("basic_auth = ['ann:x']", "passwords of visitors"), ("require_header = ['A: b']", "a header")):
        config.write_text(f"[[tunnel]]\nlocal='1'\n{line}\n")
        config.chmod(0o644)
        assert main(["start", "--server", "h", "--config", str(config)]) == 4
        assert f"{config} holds {what}" in capsys.readouterr().err


# What would leave a tunnel open


@pytest.mark.parametrize("flag", ["--basic-auth", "--allow-ip", "--deny-ip", "--require-header"])
def test_a_flag_that_is_empty_is_an_error(
    asked: list[TunnelSettings], capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert main(["http", "3000", "--server", "h", flag, ""]) == 2
    assert complaint(capsys) == f"{flag}: this is empty, and everybody could visit"
    assert not asked


@pytest.mark.parametrize("value", ["", " ", "\n"])
@pytest.mark.parametrize("setting", ["BASIC_AUTH", "BASIC_AUTH_FILE", "ALLOW_IP", "DENY_IP", "REQUIRE_HEADER"])
def test_so_is_a_variable(
    asked: list[TunnelSettings],
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    value: str,
) -> None:
    environment.setenv(f"OTUN_{setting}", value)
    assert main(["http", "3000", "--server", "h"]) == 2
    assert complaint(capsys) == f"OTUN_{setting} is set but empty: everybody could visit"
    assert not asked


def test_rules_that_have_no_effect_on_the_tables_are_an_error(
    asked: list[TunnelSettings], environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text("[client]\nserver = 'h'\nallow_ip = ['::1']\n[[tunnel]]\nlocal = '1'\n")
    assert main(["start", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: client.allow_ip: this has no effect on the tunnels in [[tunnel]]")
    config.write_text("[client]\nserver = 'h'\n[[tunnel]]\nlocal = '1'\n")
    environment.setenv("OTUN_BASIC_AUTH", "ann:s3cret")
    assert main(["start", "--config", str(config)]) == 2
    assert complaint(capsys).startswith("OTUN_BASIC_AUTH: this has no effect on the tunnels in [[tunnel]] tables")
    assert not asked


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--basic-auth", "s3cret"], "--basic-auth: a log-in is USER:PASSWORD"),
        (["--basic-auth", "ann:"], "--basic-auth: the password is empty"),
        (["--basic-auth", ":s3cret"], "--basic-auth: the user's name is empty"),
        (["--basic-auth", "ann:s3cret\x1b[2J"], "--basic-auth: the password has control characters"),
        (["--basic-auth", "ann:" + "s3cret" * 1000], "--basic-auth: the password is over 512 bytes"),
        (["--basic-auth", "ann:s3cret", "--basic-auth", "ann:x"], "a user has two passwords"),
        (["--allow-ip", "10.0.0.1/8"], "--allow-ip: '10.0.0.1/8' is no IP address and no network"),
        (["--deny-ip", "\N{PILE OF POO}"], "--deny-ip: '\N{PILE OF POO}' is no IP address"),
        (["--require-header", "s3cret value"], "--require-header: a required header is 'Name' or 'Name: value'"),
        (["--require-header", "Host: s3cret"], "--require-header: 'Host' is a header that the server changes itself"),
    ],
)
def test_a_mistake_is_one_line_and_shows_no_secret(
    asked: list[TunnelSettings], capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["http", "3000", "--server", "h", *flags]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(f"otun: {message}")
    assert "s3cret" not in err
    assert not asked


def test_too_many_users_are_an_error(asked: list[TunnelSettings], tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"user{number}:x\n" for number in range(33)).encode())
    assert main(["http", "3000", "--server", "h", "--basic-auth-file", str(path)]) == 2
    assert not asked


# Processes


@pytest.fixture
def place(start: "Start") -> tuple[str, int, "Program"]:
    """A server: its control port, its public port."""
    program = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "-v")
    control, public, _ = (program.read_line() for _ in range(3))
    return control.split()[1], int(public.rpartition(":")[2]), program


def visit(port: int, login: str | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection.request("GET", "/", headers={"Host": "app.localhost", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def command_lines(pid: int) -> str:
    """What `ps` shows of a process and of those that it has started."""
    shown = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return shown + "".join(command_lines(int(child)) for child in children)


@pytest.fixture
def local_port() -> Iterator[int]:
    """A port that nobody listens on: what gets past the server is a 502."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize("source", ["variable", "file", "flag"])
def test_the_processes_ask_for_log_ins_and_show_no_secret(
    start: "Start",
    place: tuple[str, int, "Program"],
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
    local_port: int,
    source: str,
) -> None:
    control, public, server = place
    flags: list[str] = []
    if source == "variable":
        environment.setenv("OTUN_BASIC_AUTH", "ann:s3cret")
        environment.setenv("OTUN_REQUIRE_HEADER", "X-Key: k3y")
    elif source == "file":
        flags = ["--basic-auth-file", str(write(tmp_path, b"ann:s3cret\n"))]
        environment.setenv("OTUN_REQUIRE_HEADER", "X-Key: k3y")
    else:
        flags = ["--basic-auth", "ann:s3cret", "--require-header", "X-Key: k3y"]
    client = start("http", str(local_port), "--server", control, "--name", "app", "-v", *flags)
    assert client.read_line().startswith("http://")
    key = {"X-Key": "k3y"}
    assert visit(public)[0] == 403
    assert visit(public, **key)[0] == 401
    assert visit(public, "ann:wr0ng", **key)[0] == 401
    assert visit(public, "us3r:s3cret", **key)[0] == 401
    assert visit(public, "ann:s3cret", **key)[0] == 502
    assert ("s3cret" in command_lines(client.process.pid)) == (source == "flag")
    said = [client.signal(signal.SIGTERM), server.signal(signal.SIGTERM)]
    assert [ended.code for ended in said] == [0, 0]
    for secret in ("s3cret", "k3y", "wr0ng", "us3r", "$argon2id$", base64.b64encode(b"ann:s3cret").decode()):
        assert not any(secret in ended.stdout + ended.stderr for ended in said), secret
    assert ("process list" in said[0].stderr) == (source == "flag")
    assert "wrong log-in at tunnel app" in said[1].stderr


def test_the_processes_look_at_addresses(start: "Start", place: tuple[str, int, "Program"], local_port: int) -> None:
    control, public, _ = place
    client = start("http", str(local_port), "--server", control, "--name", "app", "--deny-ip", "127.0.0.1")
    client.read_line()
    status, body = visit(public, **{"X-Forwarded-For": "192.0.2.1"})
    assert status == 403
    assert b"Error code: forbidden" in body
    assert client.signal(signal.SIGTERM).code == 0


def test_a_server_limits_requests(start: "Start", local_port: int) -> None:
    server = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--max-requests", "1")
    control, public, _ = (server.read_line() for _ in range(3))
    client = start("http", str(local_port), "--server", control.split()[1], "--name", "app")
    client.read_line()
    port = int(public.rpartition(":")[2])
    statuses = [visit(port)[0] for _ in range(12)]
    while 429 not in statuses[-1:]:
        statuses.append(visit(port)[0])
        assert len(statuses) < 1000
    assert statuses[:10] == [502] * 10


@pytest.mark.parametrize("command", ["http", "client", "tcp", "tls"])
def test_help_names_the_options(start: "Start", command: str) -> None:
    shown = re.sub(r"\s+", " ", start(command, "--help").wait().stdout)
    assert "--allow-ip" in shown
    assert "--deny-ip" in shown
    assert ("--basic-auth-file" in shown) == (command in ("http", "client"))
