"""The program as its users meet it: processes, signals, exit codes, pipes and terminals."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Addresses:
    control: str
    public: str


@pytest.fixture
def start_server(start: "Start") -> "Callable[..., tuple[Program, Addresses]]":
    """Start a server on free ports and wait until it listens."""

    def start_server(*arguments: str) -> "tuple[Program, Addresses]":
        program = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", *arguments)
        control, public, client = (program.read_line() for _ in range(3))
        assert re.fullmatch(r"control 127\.0\.0\.1:\d+", control)
        assert re.fullmatch(r"public 127\.0\.0\.1:\d+", public)
        assert re.match(r"client: (OTUN_TOKEN=TOKEN )?otun http ", client)
        return program, Addresses(control.split()[1], public.split()[1])

    return start_server


def visit(address: str, url: str, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": url.partition("//")[2], "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_version(start: "Start") -> None:
    ended = start("--version").wait()
    assert (ended.code, ended.stderr) == (0, "")
    assert re.match(r"otun \d+\.\d+", ended.stdout)


@pytest.mark.parametrize("command", ["server", "client", "http", "demo"])
def test_help_names_the_exit_codes(start: "Start", command: str) -> None:
    ended = start(command, "--help").wait()
    assert (ended.code, ended.stderr) == (0, "")
    assert "3    refused by the server" in ended.stdout


@pytest.mark.parametrize("buffering", ["", "1"])
def test_help_that_cannot_be_written_is_one_line_and_exit_code_1(
    start: "Start", environment: pytest.MonkeyPatch, buffering: str
) -> None:
    environment.setenv("PYTHONUNBUFFERED", buffering)
    with open("/dev/full", "wb") as full:
        ended = start("server", "--help", stdout=full.fileno()).wait()
    assert ended.code == 1
    assert ended.stderr == "otun: the output cannot be written: No space left on device\n"


def test_nothing_heavy_is_imported_for_the_version(environment: pytest.MonkeyPatch) -> None:
    code = "import sys; from otun.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    modules = done.stdout.split()
    assert not {"rich", "asyncio", "hypothesis"}.intersection(modules)


@pytest.mark.parametrize("script", ["otun_server.py", "otun_client.py"])
def test_the_scripts_run_from_a_checkout(environment: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    environment.delenv("PYTHONPATH")
    path = ROOT / "cli" / script
    assert os.access(path, os.X_OK)
    done = subprocess.run(
        [sys.executable, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.startswith(f"Usage: otun {script.removeprefix('otun_').removesuffix('.py')} ")


def test_a_taken_port_is_one_line_and_exit_code_1(start: "Start") -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start("server", "--control", f"127.0.0.1:{port}", "--public", "127.0.0.1:0").wait()
    assert ended.code == 1
    assert re.fullmatch(rf"otun: .*{port}.*\n", ended.stderr)


def test_a_bad_address_is_exit_code_2(start: "Start") -> None:
    ended = start("server", "--public", "nonsense").wait()
    assert ended.code == 2
    assert ended.stderr == "otun: --public: 'nonsense' has no port; write HOST:PORT\n"


def test_an_unknown_key_is_exit_code_2(start: "Start", tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[client]\nsrever = "a"\n')
    ended = start("client", "--config", str(config)).wait()
    assert ended.code == 2
    assert ended.stderr == f"otun: {config}: client.srever: unknown key; did you mean 'server'?\n"


def test_an_unreachable_server_is_one_line_and_exit_code_4(start: "Start") -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ended = start("http", "3000", "--server", f"127.0.0.1:{port}").wait()
    assert (ended.code, ended.stdout) == (4, "")
    assert re.fullmatch(rf"otun: .*{port}.*\n", ended.stderr)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_cleanly(
    start_server: "Callable[..., tuple[Program, Addresses]]", number: signal.Signals, code: int
) -> None:
    server, _ = start_server("--log-level", "warning")
    ended = server.signal(number)
    assert (ended.code, ended.stdout, ended.stderr) == (code, "", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_client_cleanly(
    start: "Start",
    start_server: "Callable[..., tuple[Program, Addresses]]",
    number: signal.Signals,
    code: int,
) -> None:
    _, addresses = start_server()
    client = start("http", "9", "--server", addresses.control, "--log-level", "warning")
    assert client.read_line().startswith("http://")
    ended = client.signal(number)
    assert (ended.code, ended.stdout, ended.stderr) == (code, "", "")


def test_a_visitor_reaches_the_local_service_and_is_logged(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]", local_port: int
) -> None:
    _, addresses = start_server()
    client = start(
        "client", "--server", addresses.control, "--local", f"127.0.0.1:{local_port}", "--subdomain", "app",
        "--log-requests",
    )  # fmt: skip
    url = client.read_line()
    assert re.fullmatch(r"http://app\.localhost:\d+", url)
    assert visit(addresses.public, url, "/a?secret") == (200, b"hello")
    assert re.fullmatch(r"\d\d:\d\d:\d\d GET /a 200 [0-9.]+m?s", client.read_line())


def test_without_a_terminal_only_the_url_is_printed(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]", local_port: int
) -> None:
    _, addresses = start_server()
    client = start("http", str(local_port), "--server", addresses.control)
    url = client.read_line()
    assert visit(addresses.public, url)[0] == 200
    assert client.signal(signal.SIGTERM).stdout == ""


def test_on_a_terminal_the_line_is_friendly_and_requests_are_shown(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]", local_port: int
) -> None:
    _, addresses = start_server()
    outside, inside = os.openpty()
    with ExitStack() as stack:
        stack.callback(os.close, inside)
        terminal = stack.enter_context(open(outside, encoding="utf-8", newline=None))
        start("http", f"127.0.0.1:{local_port}", "--server", addresses.control, "--name", "app", stdout=inside)
        url, arrow, local = terminal.readline().split()
        assert (arrow, local) == ("→", f"127.0.0.1:{local_port}")
        assert visit(addresses.public, url)[0] == 200
        assert " GET / 200 " in terminal.readline()


def test_a_closed_pipe_does_not_end_the_tunnel(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]", local_port: int
) -> None:
    _, addresses = start_server()
    client = start("http", str(local_port), "--server", addresses.control, "--log-requests", "--log-level", "warning")
    url = client.read_line()
    assert client.process.stdout is not None
    client.process.stdout.close()
    for _ in range(3):
        assert visit(addresses.public, url)[0] == 200
    client.process.stdout = None
    ended = client.signal(signal.SIGTERM)
    assert (ended.code, ended.stderr) == (0, "")


def test_a_lost_server_that_is_not_looked_for_is_one_line_and_exit_code_4(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]"
) -> None:
    server, addresses = start_server()
    client = start("http", "9", "--server", addresses.control, "--log-level", "error", "--no-reconnect")
    client.read_line()
    server.signal(signal.SIGKILL)
    ended = client.wait()
    assert ended.code == 4
    assert re.fullmatch(rf"otun: lost the server at {addresses.control}: .+\n", ended.stderr)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_control_port_open_to_others_without_tokens_is_warned_about(start: "Start", is_open: bool) -> None:
    flags = ["--open"] if is_open else []
    server = start("server", "--control", "0.0.0.0:0", "--public", "127.0.0.1:0", "--log-level", "error", *flags)
    assert server.read_line().startswith("control 0.0.0.0:")
    assert server.read_line().startswith("public 127.0.0.1:")
    assert f"--server {socket.gethostname()}:" in server.read_line()
    ended = server.signal(signal.SIGTERM)
    assert ("otun: warning: everybody who reaches the control port can open tunnels" in ended.stderr) == is_open


def test_a_second_server_on_the_same_state_is_one_line_and_exit_code_1(
    start: "Start", start_server: "Callable[..., tuple[Program, Addresses]]", tmp_path: Path
) -> None:
    state = tmp_path / "state"
    start_server("--state", str(state))
    ended = start("server", "--control", ":0", "--public", ":0", "--state", str(state)).wait()
    assert (ended.code, ended.stdout) == (1, "")
    assert (
        ended.stderr
        == f"otun: state folder {state} is in use by another otun server; give this one its own with --state, or have "
        "it take that one's place with --replace\n"
    )


def test_demo_once_shows_a_reply_that_came_through_the_tunnel(start: "Start") -> None:
    ended = start("demo", "--once", "--log-level", "error").wait()
    assert (ended.code, ended.stderr) == (0, "")
    url, *rest = ended.stdout.splitlines()
    assert re.fullmatch(r"http://demo\.localhost:\d+", url)
    assert "  HTTP/1.1 200 OK" in rest
    assert any("GET /hello-" in line for line in rest)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_demo_runs_until_a_signal(start: "Start", number: signal.Signals, code: int) -> None:
    demo = start("demo", "--log-level", "error")
    while not demo.read_line().startswith("Try: curl -H 'Host: demo.localhost:"):
        assert demo.process.poll() is None
    ended = demo.signal(number)
    assert (ended.code, ended.stderr) == (code, "")
