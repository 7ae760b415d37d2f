"""Servers that get their certificates themselves, from pebble: the programs as an operator runs them."""

import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio

from ..tls.acme.conftest import pebble, stopped_pebble
from ..tls.acme.pebble import Pebble
from .support import LIMIT, LocalService, Program, Start

__all__ = ["pebble", "stopped_pebble"]

pytestmark = pytest.mark.interop

OTUN = (sys.executable, "-m", "otun.cli")


@attrs.frozen
class Visit:
    """What curl has to say."""

    code: int
    text: str


@attrs.define(eq=False)
class Site:
    """A server with a CA, and how to start it and its clients."""

    start: Start
    pebble: Pebble
    state: Path
    control: int
    root: Path

    async def server(self, *flags: str) -> Program:
        program = await self.start(
            *(*OTUN, "server", "--domain", "example.test", "--state", self.state),
            *("--control", f"127.0.0.1:{self.control}"),
            *("--http", f"127.0.0.1:{self.pebble.http_port}", "--https", f"127.0.0.1:{self.pebble.tls_port}"),
            *("--acme-directory", self.pebble.directory, "--acme-ca", self.pebble.ca, *flags),
        )
        await program.wait_for_output("client: ")
        return program

    async def client(self, local: int, *flags: str) -> tuple[Program, str]:
        """A client, and its URL."""
        client = await self.start(*OTUN, "http", str(local), "--server", f"127.0.0.1:{self.control}", *flags)
        return client, await client.wait_for_output("http")

    async def visit(self, host: str, path: str = "/100/1") -> Visit:
        """Fetch a page by HTTPS, believing nobody but the CA."""
        self.root.write_bytes(await self.pebble.root())
        port = self.pebble.tls_port
        done = await trio.run_process(
            [
                *("curl", "--silent", "--show-error", "--cacert", str(self.root), "--max-time", str(LIMIT)),
                *("--resolve", f"{host}:{port}:127.0.0.1", "--output", str(self.root.with_name("body"))),
                *("--write-out", "%{http_code}", f"https://{host}:{port}{path}"),
            ],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        return Visit(done.returncode, (done.stdout + done.stderr).decode())


@pytest.fixture
def site(start: Start, pebble: Pebble, free_port: Callable[[], int], tmp_path: Path) -> Site:
    return Site(start, pebble, tmp_path / "state", free_port(), tmp_path / "root.pem")


async def test_a_fresh_server_serves_a_tunnel_over_https_with_a_certificate_it_got_itself(
    site: Site, local_service: LocalService
) -> None:
    server = await site.server()
    _, url = await site.client(local_service.port, "--name", "app")
    assert url == f"https://app.example.test:{site.pebble.tls_port}"
    # At once: a visitor waits for a certificate that is on its way.
    assert await site.visit("app.example.test") == Visit(0, "200")
    assert await site.visit("example.test") == Visit(0, "404")
    await server.wait_for_error("certificate for example.test: obtained, valid until ")
    await server.wait_for_error("certificate for app.example.test: obtained, valid until ")


async def test_what_visitors_ask_for_is_never_ordered(site: Site, local_service: LocalService) -> None:
    server = await site.server()
    await server.wait_for_error("certificate for example.test: obtained")
    for host in ("evil.example.test", "a.b.example.test", "example.org"):
        assert (await site.visit(host)).code != 0
    await site.client(local_service.port, "--name", "app")
    assert await site.visit("app.example.test") == Visit(0, "200")
    assert site.pebble.orders == 2


async def test_a_restarted_server_orders_nothing_that_it_has(site: Site, local_service: LocalService) -> None:
    for _ in range(2):
        server = await site.server()
        client, url = await site.client(local_service.port)
        name = url.removeprefix("https://").partition(".")[0]
        assert await site.visit(f"{name}.example.test") == Visit(0, "200")
        assert await site.visit("example.test") == Visit(0, "404")
        await client.stop()
        await server.stop()
        # A client that chooses no name gets the one that it had.
        assert site.pebble.orders == 2


async def test_with_a_dns_hook_one_wildcard_is_enough_for_all_names(site: Site, local_service: LocalService) -> None:
    server = await site.server("--acme-dns-hook", site.pebble.hook())
    await server.wait_for_error("certificate for *.example.test: obtained")
    await server.wait_for_error("certificate for example.test: obtained")
    for name in ("one", "two", "three"):
        await site.client(local_service.port, "--name", name)
        assert await site.visit(f"{name}.example.test") == Visit(0, "200")
    assert site.pebble.orders == 2


async def test_a_pass_through_tunnel_keeps_its_own_certificate(site: Site, local_service: LocalService) -> None:
    server = await site.server()
    await server.wait_for_error("certificate for example.test: obtained")
    client = await site.start(
        *OTUN, "tls", str(local_service.port), "--server", f"127.0.0.1:{site.control}", "--name", "own"
    )
    await client.wait_for_output("tls://own.example.test")
    assert (await site.visit("own.example.test")).code != 0  # The service behind it speaks no TLS.
    assert site.pebble.orders == 1
