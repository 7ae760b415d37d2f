"""Encryption as operators and users meet it: what is printed, who is believed, and a line for each failure."""

import http.client
import re
import shlex
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest

from otun.tls.contexts import CertificateFiles

from ..tls.issuing import Authority, certificate_of, fingerprint_of

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]

TOKEN = "hunter2-SECRET"
HINT = "(see --fingerprint and --ca)"


@attrs.define(eq=False)
class RunningServer:
    """A server process, and what it has printed."""

    program: "Program"
    lines: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.lines["control"].rpartition(":")[2])

    @property
    def fingerprint(self) -> str:
        return self.lines["client"].partition("--fingerprint ")[2].partition(" ")[0]

    def stop(self) -> list[str]:
        """End it; what it has logged until then, without times and ports."""
        ended = self.program.signal(signal.SIGTERM)
        assert (ended.code, ended.stdout) == (0, "")
        assert TOKEN not in ended.stderr
        assert "Traceback" not in ended.stderr
        lines = [line for line in ended.stderr.splitlines() if " otun.server.draining: " not in line]
        assert all(line.isprintable() for line in lines)
        prefix = re.compile(r"^[0-9: -]+ (\w+) otun\.[a-z_.]+: (client|visitor) [0-9.:]+: ")
        return [prefix.sub(r"\1 \2: ", line) for line in lines]


StartServer: TypeAlias = Callable[..., RunningServer]


@pytest.fixture
def start_server(start: "Start", environment: pytest.MonkeyPatch) -> StartServer:
    """Start a server with a token, on ports that other machines would reach, too, and wait until it listens."""

    def start_server(*arguments: str, control: str = "0.0.0.0:0") -> RunningServer:
        environment.setenv("OTUN_TOKENS", TOKEN)
        program = start("server", "--control", control, "--public", "127.0.0.1:0", *arguments)
        environment.delenv("OTUN_TOKENS")
        lines = {}
        while "client" not in lines:
            line = program.read_line()
            assert line, program.wait().stderr
            word, _, rest = line.partition(" ")
            lines[word.rstrip(":")] = rest
        assert TOKEN not in str(lines)
        return RunningServer(program, lines)

    return start_server


Connect: TypeAlias = "Callable[..., Program]"


@pytest.fixture
def connect(start: "Start", environment: pytest.MonkeyPatch) -> Connect:
    """Start a client with the token."""
    environment.setenv("OTUN_TOKEN", TOKEN)

    def connect(server: RunningServer | int, *arguments: str, host: str = "127.0.0.1") -> "Program":
        port = server if isinstance(server, int) else server.port
        return start("http", "9", "--server", f"{host}:{port}", "--log-level", "debug", *arguments)

    return connect


def complaint(ended: "Ended") -> tuple[int, str]:
    """How it has ended, and the one line that it has said."""
    assert ended.stdout == ""
    assert TOKEN not in ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].isprintable()
    assert lines[0].startswith("otun: ")
    return ended.code, lines[0].removeprefix("otun: ")


def see_tunnel(client: "Program") -> str:
    """Wait until it has a tunnel; its URL."""
    url = client.read_line()
    assert url.startswith("http://"), client.wait().stderr
    return url


# By default


def test_a_server_makes_itself_a_certificate_and_keeps_it(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    state = tmp_path / "deep" / "state"
    fingerprints = []
    for _ in range(2):
        server = start_server("--state", str(state))
        fingerprints.append(server.fingerprint)
        client = connect(server, "--fingerprint", server.fingerprint)
        see_tunnel(client)
        assert client.signal(signal.SIGTERM).code == 0
        server.stop()
    assert fingerprints[0] == fingerprints[1]
    assert state.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert modes["control.pem"] == 0o600
    assert not any(mode & 0o077 for mode in modes.values())
    assert fingerprints[0] == str(fingerprint_of(CertificateFiles(state / "control.pem")))


def test_the_certificate_is_in_the_home_folder_if_no_other_is_named(
    start_server: StartServer, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    server = start_server()
    path = tmp_path / ".local/state/otun/control.pem"
    assert server.fingerprint == str(fingerprint_of(CertificateFiles(path)))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    server.stop()
    environment.setenv("STATE_DIRECTORY", str(tmp_path / "of-systemd"))
    server = start_server()
    assert (tmp_path / "of-systemd" / "control.pem").exists()
    server.stop()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--domain", "tunnel.localhost"], ["--domain", "tunnel.example.org"], ["--allow-plaintext"]],
    ids=str,
)
def test_the_command_that_is_printed_opens_a_tunnel(
    start: "Start",
    start_server: StartServer,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
    local_port: int,
    arguments: list[str],
) -> None:
    server = start_server("--state", str(tmp_path / "state"), *arguments)
    words = shlex.split(server.lines["client"])
    assert words[:2] == ["OTUN_TOKEN=TOKEN", "otun"]
    environment.setenv("OTUN_TOKEN", TOKEN)
    place = words.index("--server") + 1
    host, _, port = words[place].rpartition(":")
    assert host == (arguments[1] if arguments[1:] else socket.gethostname())
    words[place] = f"127.0.0.1:{port}"
    words[words.index("3000")] = str(local_port)
    client = start(*words[2:])
    url = see_tunnel(client)
    public = http.client.HTTPConnection(server.lines["public"], timeout=20)
    public.request("GET", "/", headers={"Host": url.partition("//")[2], "Connection": "close"})
    assert public.getresponse().read() == b"hello"
    public.close()
    ended = client.signal(signal.SIGTERM)
    assert (ended.code, ended.stdout) == (0, "")
    server.stop()


def test_a_server_for_this_machine_alone_has_no_certificate_and_takes_clients_without_tls(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start_server(control="127.0.0.1:0")
    assert "--fingerprint" not in server.lines["client"]
    client = connect(server)
    see_tunnel(client)
    assert client.signal(signal.SIGTERM).code == 0
    assert not (tmp_path / ".local").exists()
    server.stop()


def test_a_server_with_a_certificate_prints_no_fingerprint(start_server: StartServer, authority: Authority) -> None:
    server = start_server("--cert", str(authority.issue("otun.example").certificate))
    assert "--fingerprint" not in server.lines["client"]
    server.stop()


# Whom the client believes

UNENCRYPTED = "INFO client: ended before it was encrypted: "


def test_a_server_with_a_certificate_for_its_name_is_believed(
    start_server: StartServer, connect: Connect, authority: Authority, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start_server("--cert", str(authority.issue("localhost").certificate), "--log-level", "warning")
    config = tmp_path / "config.toml"
    config.write_text(f"[client]\nca = '{authority.path.name}'\n")  # It is beside this file.
    for arguments in (["--ca", str(authority.path)], ["--config", str(config)]):
        see_tunnel(connect(server, *arguments, host="localhost"))
    environment.setenv("OTUN_CA", str(authority.path))
    see_tunnel(connect(server, host="localhost"))
    assert server.stop() == []


@pytest.mark.parametrize(
    ("kind", "problem", "alert"),
    [
        ("another authority's", "unable to get local issuer certificate", "unknown ca"),
        ("another name", "IP address mismatch, certificate is not valid for '127.0.0.1'.", "bad certificate"),
        ("expired", "certificate has expired", "certificate expired"),
    ],
)
def test_a_server_that_is_not_trusted_is_a_line_at_each_end_and_exit_code_5(
    start_server: StartServer,
    connect: Connect,
    authority: Authority,
    stranger: Authority,
    kind: str,
    problem: str,
    alert: str,
) -> None:
    match kind:
        case "another authority's":
            files = stranger.issue("127.0.0.1")
        case "another name":
            files = authority.issue("otun.example")
        case _:
            files = authority.issue_expired("127.0.0.1")
    server = start_server("--cert", str(files.certificate))
    assert complaint(connect(server, "--ca", str(authority.path)).wait()) == (
        5,
        f"cannot trust the server at 127.0.0.1:{server.port}: {problem} {HINT}",
    )
    warnings = [f"WARNING otun.tls.certificates: certificate {files}: it has expired on "] * (kind == "expired")
    *before, line = server.stop()
    assert line == f"{UNENCRYPTED}the other side said: {alert}"
    assert [text[20:-10] for text in before] == warnings


def test_a_self_made_certificate_needs_its_fingerprint(
    start_server: StartServer, connect: Connect, authority: Authority
) -> None:
    server = start_server()
    place = f"cannot trust the server at 127.0.0.1:{server.port}"
    other = "sha256:" + 32 * "0a"
    assert complaint(connect(server, "--fingerprint", other).wait()) == (
        5,
        f"{place}: its certificate's fingerprint is {server.fingerprint} {HINT}",
    )
    assert complaint(connect(server, "--ca", str(authority.path)).wait()) == (
        5,
        f"{place}: self-signed certificate {HINT}",
    )
    digits = server.fingerprint.removeprefix("sha256:")
    colons = ":".join(digits[index : index + 2] for index in range(0, 64, 2))
    for spelling in (digits, digits.upper(), colons.upper(), f"SHA256:{colons}"):
        client = connect(server, "--fingerprint", spelling)
        see_tunnel(client)
        assert client.signal(signal.SIGTERM).code == 0
    server.stop()


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", 31 * "0a", 33 * "0a", 63 * "a", "sha1:" + 20 * "0a", "sha256:" + 32 * "0g", "sha256/" + 32 * "0a"],
)
def test_what_is_no_fingerprint_is_a_line_and_exit_code_2(connect: Connect, text: str) -> None:
    assert complaint(connect(1, "--fingerprint", text).wait()) == (
        2,
        f"--fingerprint: {text!r} is no fingerprint; "
        "write sha256: and the 64 hexadecimal digits that the server prints",
    )


# With TLS and without


def test_a_client_without_tls_is_refused_where_others_could_listen(start_server: StartServer, connect: Connect) -> None:
    server = start_server()
    text = (
        "this server takes encrypted connections only: connect without --plaintext, "
        "and on the server's own machine with --fingerprint or --ca"
    )
    assert complaint(connect(server, "--plaintext").wait()) == (3, text)
    assert complaint(connect(server).wait()) == (3, text)  # It takes the server for one on this machine.
    assert server.stop() == [f"WARNING client: refused: {text}"] * 2


def test_a_client_without_tls_is_let_in_if_the_operator_says_so(start_server: StartServer, connect: Connect) -> None:
    server = start_server("--allow-plaintext", "--log-level", "warning")
    client = connect(server, "--plaintext")
    see_tunnel(client)
    assert client.signal(signal.SIGTERM).code == 0
    assert server.stop() == [
        "otun: warning: clients may connect without TLS: their tokens and all that passes can be read on the way"
    ]


def test_a_client_with_tls_does_not_fall_back_where_there_is_none(start_server: StartServer, connect: Connect) -> None:
    server = start_server(control="127.0.0.1:0")
    assert complaint(connect(server, "--fingerprint", 32 * "0a").wait()) == (
        4,
        f"cannot reach the server at 127.0.0.1:{server.port}: TLS failed: the other side said: unrecognized name",
    )
    assert server.stop() == [
        f"{UNENCRYPTED}it wants TLS, for which this server has no certificate; --state DIR gives it one"
    ]


def test_noise_is_a_line_each(start_server: StartServer) -> None:
    server = start_server()
    for sent in (b"GET / HTTP/1.1\r\nHost: \x1b[31mred\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x02\x1b["):
        with socket.create_connection(("127.0.0.1", server.port)) as scanner:
            scanner.sendall(sent)
            while scanner.recv(4096):
                pass
    lines = server.stop()
    assert len(lines) == 3
    assert all(line.startswith("INFO client: ended") for line in lines)


# Clients with certificates


def test_the_command_that_is_printed_says_that_a_certificate_is_needed(
    start: "Start", start_server: StartServer, environment: pytest.MonkeyPatch, authority: Authority
) -> None:
    server = start_server("--client-ca", str(authority.path), control="127.0.0.1:0")
    words = shlex.split(server.lines["client"])
    words[words.index("--client-cert") + 1] = str(authority.issue("client.example").certificate)
    environment.setenv("OTUN_TOKEN", TOKEN)
    client = start(*words[2:])
    see_tunnel(client)
    assert client.signal(signal.SIGTERM).code == 0
    server.stop()


def test_clients_without_the_right_certificate_are_a_line_at_each_end(
    start_server: StartServer, connect: Connect, authority: Authority, stranger: Authority
) -> None:
    server = start_server("--client-ca", str(authority.path))
    trust = ["--fingerprint", server.fingerprint]
    ended = f"the server at 127.0.0.1:{server.port} ended the connection: the other side said: "
    wrong = stranger.issue("client.example").certificate
    assert complaint(connect(server, *trust).wait()) == (4, f"{ended}certificate required (see --client-cert)")
    assert complaint(connect(server, *trust, "--client-cert", str(wrong)).wait()) == (
        4,
        f"{ended}unknown ca (see --client-cert)",
    )
    assert complaint(connect(server).wait())[0] == 3
    assert server.stop()[:2] == [
        f"{UNENCRYPTED}it showed no certificate",
        f"{UNENCRYPTED}unable to get local issuer certificate",
    ]


def test_who_is_taken_off_the_list_is_refused_without_a_restart(
    start_server: StartServer, connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    one, two = authority.issue("one"), authority.issue("two")
    clients = tmp_path / "clients.pem"
    clients.write_text(certificate_of(one) + certificate_of(two))
    server = start_server("--client-ca", str(clients))

    def is_let_in(certificate: CertificateFiles) -> bool:
        client = connect(server, "--fingerprint", server.fingerprint, "--client-cert", str(certificate))
        is_open = client.read_line().startswith("http://")
        return client.signal(signal.SIGTERM).code == 0 and is_open

    assert [is_let_in(one), is_let_in(two)] == [True, True]
    clients.write_text(certificate_of(two))
    errors = server.program.process.stderr
    assert errors is not None
    while "loaded anew" not in (line := errors.readline()):
        assert line, "the server has ended"
    assert [is_let_in(one), is_let_in(two)] == [False, True]
    server.stop()
