"""The client behind a proxy: where its address comes from, and whole processes."""

import http.server
import re
import signal
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from otun.addresses import TcpAddress
from otun.cli.layers import Value, open_layers
from otun.cli.proxies import read_proxy
from otun.cli.settings import ClientTable, ConfigFile
from otun.errors import AddressError

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

SERVER = TcpAddress("tunnel.example.org", 4443)
PASSWORD = "hunter2"


def choose(flags: Mapping[str, Value], environ: Mapping[str, str], table: ClientTable, server: TcpAddress) -> str:
    """The proxy that is chosen."""
    layers = open_layers("client", flags, environ, ConfigFile(path=Path("c.toml"), client=table))
    return str(read_proxy(layers, server, environ))


EVERY = {"HTTPS_PROXY": "every:1", "ALL_PROXY": "all:1"}


@pytest.mark.parametrize(
    ("flag", "environ", "key", "expected"),
    [
        (None, {}, None, "None"),
        (None, {"ALL_PROXY": "all:1"}, None, "http://all:1"),
        (None, EVERY, None, "http://every:1"),
        (None, EVERY, "file:1", "http://file:1"),
        (None, EVERY | {"OTUN_PROXY": "own:1"}, "file:1", "http://own:1"),
        (None, EVERY | {"OTUN_PROXY": ""}, "file:1", "http://file:1"),
        ("flag:1", EVERY | {"OTUN_PROXY": "own:1"}, "file:1", "http://flag:1"),
        ("none", EVERY | {"OTUN_PROXY": "own:1"}, "file:1", "None"),
        ("", EVERY | {"OTUN_PROXY": "own:1"}, "file:1", "None"),
        (None, EVERY | {"OTUN_PROXY": "none"}, "file:1", "None"),
        (None, EVERY, "none", "None"),
        (None, EVERY, "", "None"),
        (None, EVERY | {"NO_PROXY": "example.org"}, None, "None"),
        ("flag:1", EVERY | {"NO_PROXY": "*"}, None, "http://flag:1"),
        (None, EVERY | {"NO_PROXY": "*", "OTUN_PROXY": "own:1"}, None, "http://own:1"),
    ],
)
def test_a_proxy_of_our_own_settings_comes_before_that_of_all_programs(
    flag: str | None, environ: Mapping[str, str], key: str | None, expected: str
) -> None:
    assert choose({"proxy": flag}, environ, ClientTable(proxy=key), SERVER) == expected


def test_a_server_on_this_machine_is_reached_through_a_proxy_that_is_asked_for() -> None:
    local = TcpAddress("localhost", 4443)
    assert choose({}, EVERY, ClientTable(), local) == "None"
    assert choose({"proxy": "flag:1"}, EVERY, ClientTable(), local) == "http://flag:1"


@pytest.mark.parametrize(
    ("flag", "environ", "key", "name"),
    [
        ("user:hunter2", {}, None, "--proxy"),
        (None, {"OTUN_PROXY": "user:hunter2"}, None, "OTUN_PROXY"),
        (None, {}, "user:hunter2", "c.toml: client.proxy"),
        (None, {"ALL_PROXY": "user:hunter2"}, None, "ALL_PROXY"),
    ],
)
def test_a_mistake_names_its_source_and_no_password(
    flag: str | None, environ: Mapping[str, str], key: str | None, name: str
) -> None:
    with pytest.raises(AddressError) as caught:
        choose({"proxy": flag}, environ, ClientTable(proxy=key), SERVER)
    assert str(caught.value).startswith(f"{name}: the proxy has no valid host and port; write http://HOST:PORT")
    assert PASSWORD not in str(caught.value)


# Processes


@attrs.define(eq=False)
class Proxy:
    """A CONNECT proxy that takes everybody with the password to *leads_to*."""

    leads_to: TcpAddress
    asked: list[str] = attrs.field(factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://user:{PASSWORD}@127.0.0.1:{self.port}"


def copy(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(start: "Start") -> Iterator[Proxy]:
    """A proxy before a server."""
    server = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--log-level", "error")
    control = server.read_line().removeprefix("control 127.0.0.1:")
    server.read_line()
    server.read_line()
    running = Proxy(TcpAddress("127.0.0.1", int(control)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            running.asked.append(self.path)
            expected = f"Basic {b64encode(f'user:{PASSWORD}'.encode()).decode()}"
            if self.headers["Proxy-Authorization"] != expected:
                self.send_error(407)
                return
            with socket.create_connection((running.leads_to.host, running.leads_to.port)) as connection:
                self.send_response(200)
                self.end_headers()
                there = threading.Thread(target=copy, args=(self.connection, connection))
                there.start()
                copy(connection, self.connection)
                there.join()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service, ExitStack() as stack:
        running.port = service.server_port
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        stack.callback(thread.join)
        stack.callback(service.shutdown)
        yield running
        server.signal(signal.SIGTERM)  # which ends the connections through the proxy


def test_a_client_goes_through_the_proxy_of_its_flag(start: "Start", proxy: Proxy) -> None:
    way = ("--server", str(proxy.leads_to), "--proxy", proxy.url, "--plaintext")
    client = start("http", "9", *way, "--log-level", "debug")
    assert client.read_line().startswith("http://")
    assert proxy.asked == [str(proxy.leads_to)]
    ended = client.signal(signal.SIGTERM)
    assert ended.code == 0
    assert PASSWORD not in ended.stderr


@pytest.mark.parametrize("variable", ["OTUN_PROXY", "HTTPS_PROXY", "all_proxy"])
def test_a_client_goes_through_the_proxy_of_a_variable(
    start: "Start", proxy: Proxy, environment: pytest.MonkeyPatch, variable: str
) -> None:
    environment.setenv(variable, proxy.url)
    client = start("http", "9", "--server", "tunnel.invalid", "--plaintext")
    assert client.read_line().startswith("http://")
    assert proxy.asked == ["tunnel.invalid:4443"]
    assert client.signal(signal.SIGTERM).code == 0


def test_a_client_goes_through_the_proxy_of_the_file(start: "Start", proxy: Proxy, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[client]\nserver = 'tunnel.invalid'\nproxy = '{proxy.url}'\n[[tunnel]]\nlocal = '9'\n")
    config.chmod(0o600)
    client = start("start", "--config", str(config), "--plaintext")
    assert client.read_line().startswith("http://")
    assert proxy.asked == ["tunnel.invalid:4443"]
    assert client.signal(signal.SIGTERM).code == 0


def test_a_client_goes_to_a_server_on_this_machine_past_the_proxy_of_all_programs(
    start: "Start", proxy: Proxy, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTPS_PROXY", proxy.url)
    client = start("http", "9", "--server", str(proxy.leads_to))
    assert client.read_line().startswith("http://")
    assert proxy.asked == []
    assert client.signal(signal.SIGTERM).code == 0


def test_a_proxy_that_refuses_is_one_line_and_exit_code_4(start: "Start", proxy: Proxy) -> None:
    url = proxy.url.replace(PASSWORD, "wrong-word")
    ended = start("http", "9", "--server", "tunnel.invalid", "--proxy", url, "-v").wait()
    assert (ended.code, ended.stdout) == (4, "")
    *_, last = ended.stderr.splitlines()
    assert last == (
        f"otun: cannot reach the server at tunnel.invalid:4443: the proxy at 127.0.0.1:{proxy.port} refused: "
        "407 Proxy Authentication Required"
    )
    assert "wrong-word" not in ended.stderr


def test_a_bad_proxy_is_one_line_and_exit_code_2(start: "Start") -> None:
    ended = start("http", "9", "--server", "tunnel.invalid", "--proxy", f"ftp://user:{PASSWORD}@host", "-v").wait()
    assert (ended.code, ended.stdout) == (2, "")
    assert re.fullmatch(r"otun: --proxy: this kind of proxy is not supported; write .*\n", ended.stderr)
    assert PASSWORD not in ended.stderr


def test_nothing_of_python_socks_is_imported_without_a_proxy(start: "Start", environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PYTHONPROFILEIMPORTTIME", "1")
    ended = start("http", "9", "--server", "127.0.0.1:1").wait()
    assert ended.code == 4
    assert "otun.client.through_proxy" in ended.stderr
    assert "python_socks" not in ended.stderr
