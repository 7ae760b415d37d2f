"""The control connection's TLS with OpenSSL's own client and server, and with curl."""

import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from otun import Fingerprint, OtunError, ServerUnreachable, TcpAddress, Trust, open_session, open_tunnel

from ..server.fixtures import authority, server_log, stranger
from ..server.harness import RunningServer, loopback_settings, run_server
from ..server.log_lines import LogLines
from ..server.raw_client import RawClient
from ..server.tls_client import EVERYWHERE, reached
from ..tls.issuing import Authority, certificate_of, fingerprint_of
from .conftest import lack
from .support import LIMIT, Start, connect

__all__ = ["authority", "server_log", "stranger"]

pytestmark = pytest.mark.interop

NO_TLS = "client: ended before it was encrypted: "
OLD = ("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")


@pytest.fixture(autouse=True)
def programs() -> None:
    for name in ("openssl", "curl"):
        if shutil.which(name) is None:
            lack(f"{name} is not installed")


@pytest.fixture
async def server(nursery: trio.Nursery, authority: Authority) -> RunningServer:
    """A server with a certificate for 127.0.0.1, that others could reach."""
    return await run_server(
        nursery, loopback_settings(control=EVERYWHERE, open=True, certificates=(authority.issue("127.0.0.1"),))
    )


async def run(*command: str | Path) -> tuple[int, str]:
    """Run a program with an empty standard input; its status, and what it has said."""
    with trio.fail_after(LIMIT):
        done = await trio.run_process(
            list(map(str, command)), stdin=b"", capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def s_client(server: RunningServer, authority: Authority, *options: str | Path) -> tuple[str | Path, ...]:
    """OpenSSL's client, which believes the authority and nobody else."""
    return (
        *("openssl", "s_client", "-connect", str(reached(server.control)), "-no-CApath", "-CAfile", authority.path),
        *("-verify_return_error", "-verify_ip", "127.0.0.1", *options),
    )


@asynccontextmanager
async def session_over(command: tuple[str | Path, ...]) -> AsyncIterator[RawClient]:
    """A client whose bytes go through a program."""
    async with trio.open_nursery() as nursery:
        run_process = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run_process, list(map(str, command)))
        transport = trio.StapledStream(process.stdin, process.stdout)
        async with open_session(transport, "client") as session:
            yield RawClient(session, transport, await session.open_stream())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_is_a_client_like_any_other(server: RunningServer, authority: Authority, version: str) -> None:
    with trio.fail_after(LIMIT):
        async with session_over(
            s_client(server, authority, "-quiet", "-no_ign_eof", "-alpn", "otun/1", version)
        ) as client:
            assert (await client.register("app"))["type"] == "registered"
            await client.say({"type": "heartbeat"})
            assert await client.hear() == {"type": "heartbeat_ack"}


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_what_openssl_sees(server: RunningServer, authority: Authority, version: str) -> None:
    status, said = await run(*s_client(server, authority, "-alpn", "h2,otun/1", version))
    assert status == 0, said
    assert "Verify return code: 0 (ok)" in said
    assert "ALPN protocol: otun/1" in said
    assert "Compression: NONE" in said
    assert "session ticket" not in said
    assert re.search(r"Cipher is (TLS_|ECDHE-)", said)


async def test_the_fingerprint_that_openssl_prints_is_taken(server: RunningServer, authority: Authority) -> None:
    _, shown = await run(*s_client(server, authority))
    pem = ssl.PEM_HEADER + shown.partition(ssl.PEM_HEADER)[2].partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER
    path = authority.folder / "shown.pem"
    path.write_text(pem)
    _, said = await run("openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256")
    fingerprint = Fingerprint.parse(said.partition("=")[2])
    assert fingerprint == server.server.fingerprint
    async with open_tunnel(reached(server.control), trust=Trust(fingerprint=fingerprint)):
        pass


async def test_openssl_with_an_old_version_is_refused(
    server: RunningServer, authority: Authority, server_log: LogLines
) -> None:
    status, said = await run(*s_client(server, authority, *OLD))
    assert status == 1
    assert "alert protocol version" in said
    assert await server_log.wait_for(1) == [f"{NO_TLS}no common version of TLS"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("kind", ["right", "in the list itself", "none", "another authority's", "expired"])
async def test_openssls_certificate_must_be_the_right_one(
    nursery: trio.Nursery, authority: Authority, stranger: Authority, server_log: LogLines, kind: str, version: str
) -> None:
    listed = stranger.issue("client.example")
    clients = authority.folder / "clients.pem"
    clients.write_text(authority.path.read_text() + certificate_of(listed))
    settings = loopback_settings(certificates=(authority.issue("127.0.0.1"),), client_ca=clients)
    server = await run_server(nursery, settings)
    shown = {
        "right": authority.issue("client.example"),
        "in the list itself": listed,
        "another authority's": stranger.issue("client.example"),
        "expired": authority.issue_expired("client.example"),
    }.get(kind)
    options = ("-cert", shown.certificate, "-key", shown.certificate) if shown is not None else ()
    command = s_client(server, authority, "-quiet", "-no_ign_eof", "-alpn", "otun/1", version, *options)
    with trio.fail_after(LIMIT):
        if kind in ("right", "in the list itself"):
            async with session_over(command) as client:
                assert (await client.register("app"))["type"] == "registered"
            return
        await run(*command)
        (line,) = await server_log.wait_for(1)
    problem = {"none": "it showed no certificate", "expired": "certificate has expired"}
    assert line == NO_TLS + problem.get(kind, "unable to get local issuer certificate")


SERVERS: dict[str, tuple[tuple[str, ...], str]] = {
    "an old version": (OLD, "TLS failed: the other side said: no common version of TLS"),
    "another protocol": (("-alpn", "http/1.1"), "TLS failed: the other side said: no application protocol"),
    "a weak cipher": (("-tls1_2", "-cipher", "AES128-SHA"), "TLS failed: the other side said: handshake failure"),
}


@pytest.mark.parametrize("kind", SERVERS)
async def test_what_our_client_says_about_openssls_server(
    start: Start, free_port: Callable[[], int], authority: Authority, kind: str
) -> None:
    options, problem = SERVERS[kind]
    address, heard = await refuse_openssl(start, free_port, authority, options, ServerUnreachable)
    assert heard == [f"cannot reach the server at {address}: {problem}"]


async def test_openssls_server_with_a_wrong_certificate_is_told_nothing(
    start: Start, free_port: Callable[[], int], authority: Authority, stranger: Authority
) -> None:
    trusts = (Trust(ca=stranger.path), Trust(fingerprint=fingerprint_of(stranger.issue("127.0.0.1"))))
    _, heard = await refuse_openssl(start, free_port, authority, (), OtunError, *trusts)
    assert [re.sub(r"sha256:[0-9a-f]{64}", "…", text).partition(": ")[2] for text in heard] == [
        "unable to get local issuer certificate (see --fingerprint and --ca)",
        "its certificate's fingerprint is … (see --fingerprint and --ca)",
    ]


async def refuse_openssl(
    start: Start,
    free_port: Callable[[], int],
    authority: Authority,
    options: tuple[str, ...],
    error: type[OtunError],
    *trusts: Trust,
) -> tuple[TcpAddress, list[str]]:
    """Fail to open tunnels on OpenSSL's server, which hears nothing; where it was, and why."""
    files = authority.issue("127.0.0.1")
    address = TcpAddress("127.0.0.1", free_port())
    program = await start(
        *("openssl", "s_server", "-accept", str(address), "-quiet", "-cert", files.certificate),
        *("-cert_chain", files.certificate, *options),
    )
    async with await connect(address.port):
        pass  # It listens.
    texts = []
    for trust in trusts or (Trust(ca=authority.path),):
        with pytest.raises(error) as caught:
            async with open_tunnel(address, name="app", token="SECRET", trust=trust):
                raise AssertionError("the tunnel has opened")
        texts.append(str(caught.value))
    await program.stop()
    await program.wait_for_end()
    assert program.output == []
    return address, texts


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_curl_on_the_control_port_is_a_line(
    server: RunningServer, authority: Authority, server_log: LogLines, scheme: str
) -> None:
    url = f"{scheme}://{reached(server.control)}/"
    status, _ = await run("curl", "--silent", "--cacert", authority.path, "--max-time", str(LIMIT), url)
    assert status != 0
    (line,) = await server_log.wait_for(1)
    assert line.startswith("client: ended: ")


async def test_curl_is_a_visitor_where_the_port_is_shared(nursery: trio.Nursery, authority: Authority) -> None:
    settings = loopback_settings(https=TcpAddress("127.0.0.1", 0), certificates=(authority.issue("127.0.0.1"),))
    server = await run_server(nursery, settings)
    (https,) = server.server.https_addresses
    status, said = await run("curl", "--silent", "--include", "--cacert", authority.path, f"https://{https}/")
    assert status == 0
    assert said.startswith("HTTP/1.1 404 ")
