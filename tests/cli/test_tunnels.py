"""What tunnels a client is asked for, and what a server is told to allow: flags, variables, the configuration file."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import attrs
import pytest
import trio

import otun.cli.client
import otun.cli.server
from otun import Connected, HttpTimeouts, ProxyAddress, ServerSettings, TunnelEvent, TunnelSettings
from otun.addresses import LocalAddress, TcpAddress, UnixAddress
from otun.cli import main
from otun.cli.state import default_state_folder
from otun.errors import ListenError, RegistrationRefused, ServerUnreachable

pytestmark = pytest.mark.usefixtures("environment")


@attrs.define
class Asked:
    """What the client was asked for."""

    server: TcpAddress | None = None
    token: str | None = None
    settings: list[TunnelSettings] = attrs.field(factory=list)
    forwarded: list[tuple[LocalAddress, bool]] = attrs.field(factory=list)
    proxy: ProxyAddress | None = None


@attrs.frozen
class FakeTunnel:
    """Notes where its visitors are to go, and is lost."""

    asked: Asked
    url: str = "http://app.example"

    async def forward_to(self, local: LocalAddress, *, proxy_protocol: bool, **_: object) -> None:
        self.asked.forwarded.append((local, proxy_protocol))
        await trio.lowlevel.checkpoint()
        raise ServerUnreachable("the fake server has gone")

    async def events(self) -> AsyncIterator[TunnelEvent]:
        await trio.sleep_forever()
        yield Connected(self.url)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What `open_tunnels` was called with; the tunnels are lost at once, which ends the command with 4."""
    seen = Asked()

    @asynccontextmanager
    async def open_tunnels(
        server: TcpAddress,
        settings: Sequence[TunnelSettings],
        *,
        token: str | None = None,
        proxy: ProxyAddress | None = None,
        **_: object,
    ) -> AsyncIterator[tuple[FakeTunnel, ...]]:
        seen.server, seen.token, seen.settings, seen.proxy = server, token, list(settings), proxy
        await trio.lowlevel.checkpoint()
        yield tuple(FakeTunnel(seen) for _ in settings)

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    return seen


@pytest.fixture
def served(environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings that `serve` was called with; it then fails, which ends the command with 1."""
    seen: list[ServerSettings] = []

    async def serve(settings: ServerSettings, **_: object) -> None:
        is_default = settings.state == default_state_folder(os.environ)  # It has its own tests.
        seen.append(attrs.evolve(settings, state=None) if is_default else settings)
        await trio.lowlevel.checkpoint()
        raise ListenError("address already in use")

    monkeypatch.setattr("otun.cli.serving.serve", serve)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("otun: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("otun: ").removesuffix("\n")


LOCAL = TcpAddress("localhost", 3000)
WANTED = TunnelSettings(
    name="app",
    hostnames=("shop.example.org", "*.app.tunnel.example"),
    path="/api",
    host_header="internal.example",
    request_headers=("X-Key: a b", "-Cookie"),
    response_headers=("Server: otun",),
    local="localhost:3000",
)


# One tunnel


@pytest.mark.parametrize("command", [["http", "3000"], ["client", "--local", "3000"]], ids=" ".join)
def test_flags_say_what_an_http_tunnel_is_to_be(asked: Asked, command: list[str]) -> None:
    flags = ["--name", "App", "--hostname", "Shop.example.org", "--hostname", "*.app.tunnel.example", "--path", "/api"]
    flags += ["--host-header", "internal.example", "--request-header", "X-Key: a b", "--request-header", "-Cookie"]
    flags += ["--response-header", "Server: otun", "--proxy-protocol", "--server", "h", "--token", "t"]
    assert main([*command, *flags]) == 4
    assert asked == Asked(TcpAddress("h", 4443), "t", [WANTED], [(LOCAL, True)])


def test_without_flags_it_is_a_plain_one(asked: Asked) -> None:
    assert main(["http", "3000", "--server", "h"]) == 4
    assert asked.settings == [TunnelSettings(local="localhost:3000")]
    assert asked.forwarded == [(LOCAL, False)]


def test_so_do_variables(asked: Asked, environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SERVER": "h",
        "TOKEN": "t",
        "NAME": "app",
        "HOSTNAME": "shop.example.org\n*.app.tunnel.example",
        "PATH": "/api",
        "HOST_HEADER": "internal.example",
        "REQUEST_HEADER": "X-Key: a b\n-Cookie\n",
        "RESPONSE_HEADER": "Server: otun",
        "PROXY_PROTOCOL": "yes",
    }.items():
        environment.setenv(f"OTUN_{name}", value)
    assert main(["http", "3000"]) == 4
    assert asked == Asked(TcpAddress("h", 4443), "t", [WANTED], [(LOCAL, True)])


CLIENT_FILE = """\
[client]
server = "h"
token = "t"
name = "app"
hostname = ["shop.example.org", "*.app.tunnel.example"]
path = "/api"
host_header = "internal.example"
request_header = ["X-Key: a b", "-Cookie"]
response_header = ["Server: otun"]
proxy_protocol = true
"""


def test_so_does_the_file(asked: Asked, config: Path) -> None:
    config.write_text(CLIENT_FILE)
    assert main(["http", "3000", "--config", str(config)]) == 4
    assert asked == Asked(TcpAddress("h", 4443), "t", [WANTED], [(LOCAL, True)])


def test_a_list_comes_from_the_strongest_source_alone(
    asked: Asked, config: Path, environment: pytest.MonkeyPatch
) -> None:
    config.write_text(CLIENT_FILE)
    environment.setenv("OTUN_HOSTNAME", "variable.example")
    arguments = ["http", "3000", "--config", str(config)]
    assert main(arguments) == 4
    assert asked.settings[0].hostnames == ("variable.example",)
    assert main([*arguments, "--hostname", "flag.example"]) == 4
    assert asked.settings[0].hostnames == ("flag.example",)


@pytest.mark.parametrize(
    ("target", "text", "sent"),
    [
        ("3000", "rewrite", "localhost:3000"),
        ("10.0.0.7:8080", "rewrite", "10.0.0.7:8080"),
        ("[::1]:8080", "rewrite", "[::1]:8080"),
        ("internal:80", "rewrite", "internal"),
        ("unix:/run/app", "rewrite", "localhost"),
        ("3000", "preserve", ""),
        ("3000", "shop.example", "shop.example"),
        ("3000", "shop.example:81", "shop.example:81"),
    ],
)
def test_host_header_is_a_word_or_a_value(asked: Asked, target: str, text: str, sent: str) -> None:
    assert main(["http", target, "--server", "h", "--host-header", text]) == 4
    assert asked.settings[0].host_header == sent


def test_a_hostname_with_other_letters_is_taken(asked: Asked) -> None:
    assert main(["http", "3000", "--server", "h", "--hostname", "bücher.example"]) == 4
    assert asked.settings[0].hostnames == ("xn--bcher-kva.example",)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hostname", "a b"], "--hostname: 'a b' is no host name"),
        (["--hostname", "ok.example", "--hostname", "*"], "--hostname: '*' is no host name"),
        (["--path", "api"], "--path: 'api' is no path"),
        (["--request-header", "X-Key"], "--request-header: 'X-Key' is no header"),
        (["--request-header", "Host: x"], "--request-header: 'Host' says how the message is read"),
        (
            ["--response-header", "Content-Length: 1"],
            "--response-header: 'Content-Length' says how the message is read",
        ),
        (["--request-header", "a: b\r\nc: d"], "--request-header: "),
        (["--host-header", "a b"], "--host-header: 'a b'"),
        (["--host-header", "http://x"], "--host-header: 'http://x'"),
    ],
)
def test_a_mistake_in_a_tunnels_flag_is_one_line_and_exit_code_2(
    asked: Asked, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["http", "3000", "--server", "h", *flags]) == 2
    assert complaint(capsys).startswith(message)
    assert not asked.settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HOSTNAME", "a b"), ("PATH", "api"), ("RESPONSE_HEADER", "x"), ("PROXY_PROTOCOL", "maybe")],
)
def test_a_mistake_in_a_variable_names_it(
    capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    environment.setenv(f"OTUN_{variable}", value)
    assert main(["http", "3000", "--server", "h"]) == 2
    assert complaint(capsys).startswith(f"OTUN_{variable}: '{value}'")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hostname = ['a b']", "client.hostname: 'a b' is no host name"),
        ("hostname = 'a.example'", "client.hostname: expected an array, found a string"),
        ("hostname = [1]", "client.hostname"),
        ("path = 'api'", "client.path: 'api' is no path"),
        ("request_header = ['x']", "client.request_header: 'x' is no header"),
        ("proxy_protocol = 'yes'", "client.proxy_protocol: expected true or false, found a string"),
        ("hostnames = ['a']", "client.hostnames: unknown key; did you mean 'hostname'?"),
    ],
)
def test_a_mistake_in_the_file_names_its_key(
    capsys: pytest.CaptureFixture[str], config: Path, line: str, message: str
) -> None:
    config.write_text(f"[client]\nserver = 'h'\n{line}\n")
    assert main(["http", "3000", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: {message}")


@pytest.mark.parametrize("command", [["http", "3000"], ["client", "--local", "3000"], ["tcp", "22"], ["start"]])
def test_every_client_may_go_through_a_proxy(
    asked: Asked, config: Path, environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    config.write_text("[client]\nserver = 'h'\nproxy = 'socks5h://file.example'\n[[tunnel]]\nlocal = '1'\n")
    arguments = [*command, "--config", str(config)]
    proxies = []
    environment.setenv("HTTPS_PROXY", "http://every.example")
    for value in ("", "http://variable.example"):
        environment.setenv("OTUN_PROXY", value)
        assert main(arguments) == 4
        proxies.append(str(asked.proxy))
    for value in ("http://flag.example:1", "none", ""):
        assert main([*arguments, "--proxy", value]) == 4
        proxies.append(str(asked.proxy))
    expected = ["socks5h://file.example:1080", "http://variable.example:1080", "http://flag.example:1", "None", "None"]
    assert proxies == expected


# TCP


def test_tcp_opens_a_raw_tunnel(asked: Asked) -> None:
    arguments = ["tcp", "22", "--remote-port", "2222", "--server", "h", "--name", "ssh", "--token", "t"]
    assert main([*arguments, "--proxy-protocol"]) == 4
    settings = TunnelSettings(kind="tcp", name="ssh", remote_port=2222, local="localhost:22")
    assert asked == Asked(TcpAddress("h", 4443), "t", [settings], [(TcpAddress("localhost", 22), True)])


def test_tcp_leaves_the_port_to_the_server(asked: Asked) -> None:
    assert main(["tcp", "unix:/run/db", "--server", "h"]) == 4
    assert asked.settings == [TunnelSettings(kind="tcp", local="unix:/run/db")]
    assert asked.forwarded == [(UnixAddress("/run/db"), False)]


def test_tcp_takes_its_port_from_variable_and_file(asked: Asked, config: Path, environment: pytest.MonkeyPatch) -> None:
    config.write_text("[client]\nserver = 'h'\nremote_port = 1\n")
    arguments = ["tcp", "22", "--config", str(config)]
    ports = []
    for value in ("", "2"):
        environment.setenv("OTUN_REMOTE_PORT", value)
        assert main(arguments) == 4
        ports.append(asked.settings[0].remote_port)
    assert main([*arguments, "--remote-port", "3"]) == 4
    assert [*ports, asked.settings[0].remote_port] == [1, 2, 3]


def test_what_is_for_http_only_is_no_concern_of_tcp(asked: Asked, config: Path) -> None:
    config.write_text(CLIENT_FILE)
    assert main(["tcp", "22", "--config", str(config)]) == 4
    assert asked.settings == [TunnelSettings(kind="tcp", name="app", local="localhost:22")]


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "1.5", "", "\N{FULLWIDTH DIGIT TWO}"])
def test_a_bad_remote_port_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main(["tcp", "22", f"--remote-port={port}", "--server", "h"]) == 2
    assert complaint(capsys).startswith(f"--remote-port: '{port}' is no port")


@pytest.mark.parametrize("command", [["tcp"], ["tcp", "22", "--hostname", "x"], ["http", "1", "--remote-port", "1"]])
def test_a_flag_of_the_other_kind_is_wrong_usage(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([*command, "--server", "h"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_port_that_the_server_refuses_is_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def open_tunnels(*_: object, **__: object) -> AsyncIterator[tuple[FakeTunnel, ...]]:
        await trio.lowlevel.checkpoint()
        raise RegistrationRefused("port 22 is not among those for TCP tunnels on this server", code="port_not_allowed")
        yield ()

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    assert main(["tcp", "22", "--remote-port", "22", "--server", "h"]) == 3
    assert complaint(capsys).startswith(
        "port 22 is not among those for TCP tunnels on this server; without --remote-port"
    )


# Those of the file


TUNNELS = """\
[client]
server = "h"
token = "t"
name = "not for these"
path = "/not-for-these"

[[tunnel]]
name = "web"
local = "3000"
hostname = ["shop.example.org"]
host_header = "rewrite"
proxy_protocol = true

[[tunnel]]
name = "ssh"
kind = "tcp"
local = "[::1]:22"
remote_port = 2222

[[tunnel]]
kind = "http"
local = "unix:/run/app"
path = "/api"
request_header = ["X-Key: 1"]
response_header = ["-Server"]
"""

WEB = TunnelSettings(name="web", hostnames=("shop.example.org",), host_header="localhost:3000", local="localhost:3000")
SSH = TunnelSettings(name="ssh", kind="tcp", remote_port=2222, local="[::1]:22")
API = TunnelSettings(path="/api", request_headers=("X-Key: 1",), response_headers=("-Server",), local="unix:/run/app")


def test_start_opens_all_tunnels_of_the_file_over_one_session(
    asked: Asked, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config.write_text(TUNNELS)
    assert main(["start", "--config", str(config)]) == 4
    assert asked.server == TcpAddress("h", 4443)
    assert asked.token == "t"
    assert asked.settings == [WEB, SSH, API]
    places = [(TcpAddress("localhost", 3000), True), (TcpAddress("::1", 22), False), (UnixAddress("/run/app"), False)]
    assert sorted(asked.forwarded, key=str) == sorted(places, key=str)
    out, err = capfd.readouterr()
    assert out == "http://app.example\n" * 3
    warning, last = err.splitlines()
    assert warning.startswith(f"otun: warning: {config} holds a token and other users can read it")
    assert last == "otun: the fake server has gone"


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["ssh"], [SSH]), (["ssh", "web"], [SSH, WEB]), (["web", "web"], [WEB])],
    ids=["one", "two", "twice"],
)
def test_start_opens_those_that_are_named(
    asked: Asked, config: Path, names: list[str], expected: list[TunnelSettings]
) -> None:
    config.write_text(TUNNELS)
    assert main(["start", *names, "--config", str(config)]) == 4
    assert asked.settings == expected


def test_start_takes_server_and_token_from_flags_too(asked: Asked, config: Path) -> None:
    config.write_text(TUNNELS)
    assert main(["start", "web", "--config", str(config), "--server", "other:1", "--token", "u"]) == 4
    assert (asked.server, asked.token) == (TcpAddress("other", 1), "u")


def test_start_reads_the_default_file(asked: Asked, tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "otun"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(TUNNELS)
    assert main(["start"]) == 4
    assert asked.settings == [WEB, SSH, API]


@pytest.mark.parametrize(
    ("tables", "names", "message"),
    [
        ("", [], "{file} has no [[tunnel]] tables"),
        ("[[tunnel]]\nname='a'\nlocal='1'", ["b"], "{file} has no tunnel named 'b'; it has a"),
        ("[[tunnel]]\nlocal='1'", ["b"], "{file} has no tunnel named 'b'; it has none with a name"),
        ("[[tunnel]]\nname='a'\nlocal='1'", ["a", "b", "c"], "{file} has no tunnel named 'b'"),
        ("[[tunnel]]\nname='a'", [], "{file}: tunnel[0].local: which local service?"),
        ("[[tunnel]]\nlocal='1'\n[[tunnel]]\nname='b'", ["b"], "{file}: tunnel[1].local: which local service?"),
        (
            "[[tunnel]]\nlocal='1'\nkind='udp'",
            [],
            "{file}: tunnel[0].kind: 'udp' is no kind of tunnel; expected http, tcp or",
        ),
        ("[[tunnel]]\nlocal='app'", [], "{file}: tunnel[0].local: 'app' has no port"),
        ("[[tunnel]]\nlocal=3000", [], "{file}: tunnel[0].local: expected a string, found an integer"),
        ("[[tunnel]]\nlocal='1'\nname='a_b'", [], "{file}: tunnel[0].name: 'a_b' is no name for a tunnel"),
        ("[[tunnel]]\nlocal='1'\nhostname=['*']", [], "{file}: tunnel[0].hostname: '*' is no host name"),
        ("[[tunnel]]\nlocal='1'\npath='api'", [], "{file}: tunnel[0].path: 'api' is no path"),
        ("[[tunnel]]\nlocal='1'\nkind='tcp'\nremote_port=0", [], "{file}: tunnel[0].remote_port: '0' is no port"),
        (
            "[[tunnel]]\nlocal='1'\nkind='tcp'\nremote_port='1'",
            [],
            "{file}: tunnel[0].remote_port: expected an integer",
        ),
        ("[[tunnel]]\nlocal='1'\nrequest_header=['x']", [], "{file}: tunnel[0].request_header: 'x' is no header"),
        ("[[tunnel]]\nlocal='1'\nlocl='x'", [], "{file}: tunnel[0].locl: unknown key; did you mean 'local'?"),
        ("[tunnel]\nlocal='1'", [], "{file}: tunnel: expected an array, found a table"),
        ("tunnel=[1]", [], "{file}: tunnel[0]: expected a table, found an integer"),
    ],
)
def test_a_mistake_in_the_tables_is_one_line_with_file_and_key_and_exit_code_2(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    config: Path,
    environment: pytest.MonkeyPatch,
    tables: str,
    names: list[str],
    message: str,
) -> None:
    config.write_text(tables)
    environment.setenv("OTUN_SERVER", "h")
    assert main(["start", *names, "--config", str(config)]) == 2
    assert complaint(capsys).startswith(message.format(file=config))
    assert not asked.settings


def test_the_second_of_two_equal_tables_is_named_by_its_own_number(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text("[client]\nserver='h'\n[[tunnel]]\nlocal='1'\n[[tunnel]]\nkind='x'\nlocal='1'\n")
    assert main(["start", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: tunnel[1].kind: ")


def test_two_tables_of_one_name_are_both_opened(asked: Asked, config: Path) -> None:
    """They may differ in their paths."""
    config.write_text(
        "[client]\nserver='h'\n[[tunnel]]\nname='a'\nlocal='1'\n[[tunnel]]\nname='a'\npath='/api'\nlocal='2'\n"
    )
    assert main(["start", "a", "--config", str(config)]) == 4
    assert [settings.path for settings in asked.settings] == ["", "/api"]


def test_start_without_any_file_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--server", "h"]) == 2
    assert "no [[tunnel]] tables" in complaint(capsys)


def test_start_without_a_server_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text("[[tunnel]]\nlocal = '1'\n")
    assert main(["start", "--config", str(config)]) == 2
    assert complaint(capsys).startswith("which server? Give --server HOST")


def test_the_other_commands_pass_the_tables_over(asked: Asked, config: Path) -> None:
    config.write_text("[client]\nserver = 'h'\n[[tunnel]]\nname = 'a'\nlocal = '1'\n")
    assert main(["http", "3000", "--config", str(config)]) == 4
    assert asked.settings == [TunnelSettings(local="localhost:3000")]


# The server


SERVER_FLAGS = {
    "allow_hostname": ["*.example.org", "Bücher.example"],
    "tcp_ports": ["20000-20002,22022"],
    "trusted_proxy": ["10.0.0.0/8", "2001:db8::1"],
    "head_timeout": ["1.5"],
    "idle_timeout": ["2"],
    "body_timeout": ["3"],
    "response_timeout": ["4"],
    "max_connections": ["5"],
    "max_streams": ["6"],
    "max_requests": ["7"],
    "max_bandwidth": ["8MB"],
    "max_daily": ["9GB"],
    "drain": ["10s"],
}

EXPECTED = ServerSettings(
    allow_hostnames=("*.example.org", "xn--bcher-kva.example"),
    tcp_ports=(range(20000, 20003), range(22022, 22023)),
    trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128")),
    timeouts=HttpTimeouts(head=1.5, idle=2, body=3, response=4),
    max_connections=5,
    max_streams=6,
    max_requests=7,
    max_bandwidth=8_000_000,
    max_daily=9_000_000_000,
    drain=10,
)


def test_flags_say_what_the_server_allows(served: list[ServerSettings]) -> None:
    flags = [word for name, values in SERVER_FLAGS.items() for value in values for word in (flag(name), value)]
    assert main(["server", *flags]) == 1
    assert served == [EXPECTED]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def test_variables_say_it_too(served: list[ServerSettings], environment: pytest.MonkeyPatch) -> None:
    for name, values in SERVER_FLAGS.items():
        environment.setenv(f"OTUN_{name.upper()}", "\n".join(values))
    assert main(["server"]) == 1
    assert served == [EXPECTED]


def test_the_file_says_it_too(served: list[ServerSettings], config: Path) -> None:
    config.write_text(
        "[server]\n"
        'allow_hostname = ["*.example.org", "Bücher.example"]\n'
        'tcp_ports = "20000-20002, 22022"\n'
        'trusted_proxy = ["10.0.0.0/8", "2001:db8::1"]\n'
        "head_timeout = 1.5\nidle_timeout = 2\nbody_timeout = 3\nresponse_timeout = 4.0\n"
        "max_connections = 5\nmax_streams = 6\nmax_requests = 7\n"
        'max_bandwidth = "8MB"\nmax_daily = "9GB"\ndrain = "10s"\n'
    )
    assert main(["server", "--config", str(config)]) == 1
    assert served == [EXPECTED]


def test_what_is_not_said_is_the_default(served: list[ServerSettings]) -> None:
    assert main(["server", "--idle-timeout", "5"]) == 1
    assert served == [ServerSettings(timeouts=HttpTimeouts(idle=5))]


MISTAKES = [
    ("allow_hostname", "a b", "'a b' is no host name"),
    ("allow_hostname", "*", "'*' is no host name"),
    ("tcp_ports", "0-10", "'0-10' is no port and no range of ports"),
    ("tcp_ports", "10-1", "'10-1' is no port and no range of ports"),
    ("tcp_ports", "1,x", "'x' is no port and no range of ports"),
    ("tcp_ports", "1-65536", "'1-65536' is no port and no range of ports"),
    ("tcp_ports", "20000:20100", "'20000:20100' is no port and no range of ports"),
    ("trusted_proxy", "10.0.0.0/33", "'10.0.0.0/33' is no IP address and no network"),
    ("trusted_proxy", "10.0.0.1/8", "'10.0.0.1/8' is no IP address and no network"),
    ("trusted_proxy", "proxy.example", "'proxy.example' is no IP address and no network"),
    ("head_timeout", "0", "'0' is no number of seconds"),
    ("idle_timeout", "-1", "'-1' is no number of seconds"),
    ("body_timeout", "1e3", "'1e3' is no number of seconds"),
    ("response_timeout", "inf", "'inf' is no number of seconds"),
    ("response_timeout", "5s", "'5s' is no number of seconds"),
    ("max_connections", "0", "'0' is no number from 1 up"),
    ("max_connections", "1.5", "'1.5' is no number from 1 up"),
    ("max_streams", "-1", "'-1' is no number from 1 up"),
    ("max_streams", "many", "'many' is no number from 1 up"),
    ("max_requests", "0.5", "'0.5' is no number from 1 up"),
    ("max_bandwidth", "fast", "'fast' is no number of bytes: write it as 500kB, 10MB or 5GB"),
    ("max_bandwidth", "10", "'10' is not between 1kB and 1TB"),
    ("max_daily", "0", "'0' is not between 1kB and 1000TB"),
    ("max_daily", "1e9", "'1e9' is no number of bytes: write it as 500kB, 10MB or 5GB"),
]


@pytest.mark.parametrize(("name", "value", "message"), MISTAKES)
def test_a_mistake_in_a_servers_flag_or_variable_is_one_line_and_exit_code_2(
    served: list[ServerSettings],
    capsys: pytest.CaptureFixture[str],
    environment: pytest.MonkeyPatch,
    name: str,
    value: str,
    message: str,
) -> None:
    assert main(["server", f"{flag(name)}={value}"]) == 2
    assert complaint(capsys).startswith(f"{flag(name)}: {message}")
    environment.setenv(f"OTUN_{name.upper()}", value)
    assert main(["server"]) == 2
    assert complaint(capsys).startswith(f"OTUN_{name.upper()}: {message}")
    assert not served


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("allow_hostname = 'a.example'", "server.allow_hostname: expected an array, found a string"),
        ("allow_hostname = ['a b']", "server.allow_hostname: 'a b' is no host name"),
        ("tcp_ports = [20000]", "server.tcp_ports: expected a string, found an array"),
        ("tcp_ports = 20000", "server.tcp_ports: expected a string, found an integer"),
        ("tcp_ports = 'x'", "server.tcp_ports: 'x' is no port and no range of ports"),
        ("trusted_proxy = ['x']", "server.trusted_proxy: 'x' is no IP address and no network"),
        ("head_timeout = '5'", "server.head_timeout: expected a float, found a string"),
        ("head_timeout = true", "server.head_timeout: expected a float, found true or false"),
        ("head_timeout = 0", "server.head_timeout: '0.0' is no number of seconds"),
        ("body_timeout = -1", "server.body_timeout: '-1.0' is no number of seconds"),
        ("idle_timeout = inf", "server.idle_timeout: 'inf' is no number of seconds"),
        ("max_streams = 0", "server.max_streams: '0' is no number from 1 up"),
        ("max_connections = 1.5", "server.max_connections: expected an integer, found a float"),
        ("max_conections = 1", "server.max_conections: unknown key; did you mean 'max_connections'?"),
    ],
)
def test_a_mistake_in_the_servers_table_is_one_line_with_file_and_key_and_exit_code_2(
    served: list[ServerSettings], capsys: pytest.CaptureFixture[str], config: Path, line: str, message: str
) -> None:
    config.write_text(f"[server]\n{line}\n")
    assert main(["server", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: {message}")
    assert not served


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "http",
            ["--hostname", "--path", "--host-header", "--request-header", "--response-header", "--proxy-protocol"],
        ),
        ("tcp", ["--remote-port", "--proxy-protocol"]),
        ("start", ["--server", "--token", "--config"]),
        ("server", list(map(flag, SERVER_FLAGS))),
    ],
)
def test_help_names_the_flags(
    capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, command: str, flags: list[str]
) -> None:
    environment.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in flags if name not in shown] == []
